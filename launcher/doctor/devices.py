"""GPUs as torch sees them: CUDA, NCCL, free memory, and whether the fused attention kernels can be used."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from launcher.doctor.finding import Finding, Level

SCARCE_MEMORY = 0.9
"""Share of a GPU's memory that ought to be free before training."""
_DRIVER = Path("/dev/nvidiactl")


def check_devices() -> list[Finding]:
    """Returns what torch finds; on a machine without GPUs that is one line."""
    try:
        import torch  # here, because the doctor must answer where torch cannot be imported
    except Exception as error:
        reason = str(error).splitlines()[0]
        return [Finding("CUDA", Level.MISS, f"torch cannot be imported: {reason}", "Install torch anew.")]
    if not torch.cuda.is_available():
        return [no_cuda(torch.version.cuda, driver_is_there=_DRIVER.exists())]
    count = torch.cuda.device_count()
    nccl = torch.distributed.is_nccl_available()
    return [
        Finding("CUDA", Level.OK, f"CUDA {torch.version.cuda}, {count} x {torch.cuda.get_device_name(0)}"),
        *(gpu_memory(index, *torch.cuda.mem_get_info(index)) for index in range(count)),
        nccl_finding(torch.cuda.nccl.version() if nccl else None, gpus=count),
        kernels_finding(_version("triton")),
    ]


def no_cuda(built_for: str | None, *, driver_is_there: bool) -> Finding:
    """Returns why there is no CUDA: no GPU, a torch built without CUDA, or a driver that torch cannot use."""
    if not driver_is_there:
        remedy = "To train on GPUs, work on a machine whose GPUs `nvidia-smi` lists."
        return Finding("CUDA", Level.WARN, "no GPU: ranks train on processors", remedy)
    if built_for is None:
        remedy = "Install a torch that is built for CUDA."
        return Finding("CUDA", Level.MISS, "there are GPUs, but this torch is built without CUDA", remedy)
    found = f"there are GPUs, but torch, built for CUDA {built_for}, cannot use them"
    remedy = (
        "Update the driver (`nvidia-smi` shows the newest CUDA it knows), and see that CUDA_VISIBLE_DEVICES is right."
    )
    return Finding("CUDA", Level.MISS, found, remedy)


def gpu_memory(index: int, free: int, total: int) -> Finding:
    """Returns how much of a GPU's memory, in bytes, is free."""
    name = f"GPU {index}"
    if free >= SCARCE_MEMORY * total:
        return Finding(name, Level.OK, f"{total / 2**30:.0f} GiB, at least {SCARCE_MEMORY:.0%} free")
    found = f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    return Finding(name, Level.WARN, found, "See with `nvidia-smi` who uses the rest.")


def nccl_finding(found: tuple[int, ...] | None, *, gpus: int) -> Finding:
    """Returns whether ranks on several GPUs can talk to each other."""
    if found is not None:
        return Finding("NCCL", Level.OK, ".".join(map(str, found)))
    level = Level.MISS if gpus > 1 else Level.WARN
    return Finding("NCCL", level, "this torch is built without it", "Install a torch for Linux that is built for CUDA.")


def kernels_finding(triton: str | None) -> Finding:
    """Returns whether attention on GPUs has its fused kernels."""
    if triton is not None and find_spec("triton") is not None:
        return Finding("triton", Level.OK, triton)
    remedy = "Install the triton that belongs to this torch; without it attention uses the slower portable engine."
    return Finding("triton", Level.WARN, "not installed", remedy)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
