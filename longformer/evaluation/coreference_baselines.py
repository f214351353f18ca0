"""Which clusters of mentions the words of English documents give without a network: beside their scores, nobody is
fooled by a high one."""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import accumulate, pairwise

Mention = tuple[int, int]
"""First and last word."""
_DETERMINERS = {
    *"the a an this that these those my your his her its our their some any no every each another".split()  # noqa: SIM905
}
_FUNCTION_WORDS = {
    *_DETERMINERS,
    *"""
    about above across after against along among around as at before behind below beneath beside between beyond but by
    down during except for from in inside into like near of off on onto out outside over past since than through
    throughout till to toward towards under until unto up upon with within without
    and because if nor or so though although unless when where whether while yet however
    i me mine myself you yours yourself he him himself she hers herself it itself we us ours ourselves they them theirs
    themselves ye thou thee one who whom whose which what why how that
    am is are was were be been being have has had having do does did done will would shall should can could may might
    must ought ca wo sha
    not never n't 's 'll 've 'd 'm 're there here then now thus too very also only even still just ever again away once
    all both either neither much more most such
    said says came come went go goes took made saw knew thought gave got stood sat told felt seemed
    """.split(),  # noqa: SIM905
}
_QUOTATION_MARKS = {'"', "'", "`", "``", "''", "\u201c", "\u201d", "\u2018", "\u2019"}
_ENDS_OF_OTHERS = ("ed", "ly")
"""Of verbs in the past and adverbs."""


def english_mentions(words: Sequence[str], sentences: Sequence[int]) -> list[Mention]:
    """Returns the names and the nominals with a determiner that simple rules find, in order; none overlap.

    A name is a run of capitalised words that is as long as can be. The first word of a sentence or a quotation belongs
    to one where the document has it elsewhere more often capitalised than not. A nominal is a determiner or possessive
    pronoun, and the words behind it before a function word, a punctuation mark or the end of the sentence; also before
    a word in -ed or -ly, unless it is the first of them. Pronouns are no mentions.

    Args:
        words: of the document.
        sentences: how many words each sentence has.
    """
    starts = [0, *accumulate(sentences)]
    first_words = {*starts, *(number + 1 for number, word in enumerate(words) if word in _QUOTATION_MARKS)}
    inside = Counter(word for number, word in enumerate(words) if number not in first_words)

    def is_name(number: int) -> bool:
        word = words[number]
        is_capitalised = word[0].isupper() and word.lower() not in _FUNCTION_WORDS
        return is_capitalised and (number not in first_words or inside[word] > inside[word.lower()])

    found = []
    for start, end in pairwise(starts):
        place = start
        while place < end:
            if words[place].lower() in _DETERMINERS:
                behind = place + len(_noun_group(words[place + 1 : end])) + 1
                is_mention = behind > place + 1
            else:
                behind = place
                while behind < end and is_name(behind):
                    behind += 1
                is_mention = behind > place
            if is_mention:
                found.append((place, behind - 1))
            place = max(behind, place + 1)
    return found


def matched_clusters(words: Sequence[str], mentions: Sequence[Mention]) -> list[list[Mention]]:
    """Returns the clusters in which names have the same words, and nominals the same head; pronouns stay alone.

    The head is the last word that `english_mentions` takes into a nominal. Case does not matter.

    Args:
        words: of the document.
        mentions: such as `english_mentions` finds.
    """
    clusters: dict[Hashable, list[Mention]] = {}
    for first, last in mentions:
        inside = words[first : last + 1]
        determiners = next((number for number, word in enumerate(inside) if word.lower() not in _DETERMINERS), 0)
        group = _noun_group(inside[determiners:])
        is_name = all(word[0].isupper() for word in group)
        named = tuple(word.lower() for word in (group if is_name else group[-1:]))
        clusters.setdefault(named or (first, last), []).append((first, last))
    return list(clusters.values())


def single_clusters(mentions: Sequence[Mention]) -> list[list[Mention]]:
    """Returns a cluster of every mention."""
    return [[mention] for mention in mentions]


def _noun_group(words: Sequence[str]) -> Sequence[str]:
    """Returns the words before the first that can be no part of a noun and the adjectives before it."""
    for number, word in enumerate(words):
        if (
            not word[0].isalnum()
            or word.lower() in _FUNCTION_WORDS
            or (number and word.islower() and word.endswith(_ENDS_OF_OTHERS))
        ):
            return words[:number]
    return words
