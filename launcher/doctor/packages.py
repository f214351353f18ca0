"""Versions of Python and of the packages against what pyproject.toml asks for."""

import platform
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from launcher.doctor.finding import Finding, Level

_PROJECT = "longformer-train"
_NOT_INSTALLED = Finding(
    "packages", Level.MISS, f"{_PROJECT} is not installed", "Install the project: pip install --editable ."
)


def check_python() -> list[Finding]:
    """Returns whether this Python is new enough."""
    try:
        needed = SpecifierSet(metadata(_PROJECT)["Requires-Python"])
    except PackageNotFoundError:
        return [_NOT_INSTALLED]
    found = platform.python_version()
    if Version(found) in needed:
        return [Finding("python", Level.OK, found)]
    return [Finding("python", Level.MISS, found, f"Make the environment anew with Python {needed}.")]


def check_packages() -> list[Finding]:
    """Returns a finding for every required package, and for those of the extra `ray`, which need not be there."""
    try:
        requirements = [Requirement(line) for line in requires(_PROJECT) or []]
    except PackageNotFoundError:
        return [_NOT_INSTALLED]
    required = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    optional = [
        each for each in requirements if each not in required and each.marker and each.marker.evaluate({"extra": "ray"})
    ]
    return [package_finding(each, Level.MISS) for each in required] + [
        package_finding(each, Level.WARN) for each in optional
    ]


def package_finding(requirement: Requirement, otherwise: Level) -> Finding:
    """Returns whether a package fits a requirement, at the level `otherwise` where it does not."""
    wanted = f"{requirement.name}{requirement.specifier}"
    remedy = f'Install it: pip install "{wanted}".'
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(requirement.name, otherwise, "not installed", remedy)
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, Level.OK, found)
    upper = [each for each in requirement.specifier if each.operator in ("<", "<=")]
    is_new = any(not each.contains(found, prereleases=True) for each in upper)
    age = "too new" if is_new else "too old"
    return Finding(requirement.name, otherwise, f"{found}, {age} for {requirement.specifier}", remedy)
