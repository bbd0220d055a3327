"""A Debian in a virtual machine, for what a container lacks: pure cgroup v2, another systemd, another kernel.

Owns the image and its boot by QEMU, by emulation where that is all there is: a boot takes half
a minute then, and a check ten times as long.  There is no network, and no port is opened.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.systemd.container import (
    CHECKS_UNIT,
    HERE,
    PACKAGES,
    install_project,
    read,
    require_tools,
    root_of,
    run,
    wait,
)

MORE_PACKAGES = ("dbus-user-session", "initramfs-tools", "linux-image-cloud-amd64", "procps", "udev")
BOOT_TIMEOUT = 3600.0
DEADLINE = "300"
"""Seconds in which a check waits for something there."""
MODULES = "virtio_pci\nvirtio_blk\next4\n"
FSTAB = "/dev/vda / ext4 defaults 0 1\n/dev/vdb /results ext4 sync 0 2\n"
# What takes the little time that there is, or waits for a network.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "dpkg-db-backup.timer",
)
MASKED += ("systemd-timesyncd.service", "systemd-networkd.service", "systemd-pstore.service")


def boot_and_check(scratch: Path, wanted: Sequence[str], suite: str) -> dict[str, dict[str, object]]:
    """Boot the machine, run the wanted checks in it; what came of each, by its name."""
    require_tools(
        ("qemu-system-x86_64", "qemu-system-x86"), ("debootstrap", "debootstrap"), ("mkfs.ext4", "e2fsprogs")
    )
    with root_of(suite, (*PACKAGES, *MORE_PACKAGES), suite) as root:
        install_project(root, scratch)
        _furnish(root, scratch, wanted)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(next((root / "boot").glob(f"{name}-*")), scratch / name)
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-d", root, scratch / "root.img", "4G")
    run("mkfs.ext4", "-q", scratch / "results.img", "64M")
    wait(_qemu(scratch), scratch / "console", BOOT_TIMEOUT)
    for name in ("results.jsonl", "output"):
        run("debugfs", "-R", f"dump {name} {scratch / name}", scratch / "results.img")
    return read(scratch / "results.jsonl")


def _furnish(root: Path, scratch: Path, wanted: Sequence[str]) -> None:
    """Put the checks in, and what the machine needs to boot into them."""
    for name in ("checks", "units", "results"):
        shutil.rmtree(root / name, ignore_errors=True)
    shutil.copytree(HERE, root / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "checks/wanted").write_text("\n".join(wanted))
    shutil.copytree(scratch / "units", root / "units")
    (root / "results").mkdir()
    system = root / "etc/systemd/system"
    (system / "checks.service").write_text(
        CHECKS_UNIT.replace("[Service]\n", f"[Service]\nEnvironment=CHECKS_DEADLINE={DEADLINE}\n")
    )
    for unit in MASKED:
        (system / unit).unlink(missing_ok=True)
        (system / unit).symlink_to(os.devnull)
    (root / "etc/fstab").write_text(FSTAB)
    (root / "etc/hostname").write_text("machine\n")
    (root / "etc/initramfs-tools/initramfs.conf").write_text("MODULES=list\nBUSYBOX=auto\nCOMPRESS=gzip\n")
    (root / "etc/initramfs-tools/modules").write_text(MODULES)
    run("chroot", root, "update-initramfs", "-u", "-k", "all")


def _qemu(scratch: Path) -> list[str]:
    words = "root=/dev/vda rw console=ttyS0 panic=-1 quiet random.trust_cpu=on"
    options = [
        *(
            "-accel",
            os.environ.get("QEMU_ACCEL", "tcg,thread=multi"),
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "3072",
        ),
        *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-nic", "none", "-serial", "stdio"),
        *("-kernel", str(scratch / "vmlinuz"), "-initrd", str(scratch / "initrd.img")),
        *("-append", f"{words} systemd.unit=checks.service systemd.wants=multi-user.target"),
        *("-device", "virtio-rng-pci"),
    ]
    for name in ("root", "results"):
        options += ["-drive", f"file={scratch / name}.img,if=virtio,format=raw,cache=unsafe"]
    return [f"qemu-system-{platform.machine()}", *options]
