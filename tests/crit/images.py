# SPDX-License-Identifier: GPL-2.0-only
"""A small checkpoint, made with `crit encode` from what it is to hold."""

import json
import os
import subprocess

CRIT = os.environ["CRIT"]
NO_OWNER = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}
REGISTERS = ("r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss fs_base gs_base ds es fs "
             "gs").split()
PAGE = 4096


def crit(*words, **more):
    return subprocess.run([CRIT, *words], capture_output=True, **more)


def put(directory, name, magic, entries):
    result = crit("encode", "-o", os.path.join(directory, name),
                  input=json.dumps({"magic": magic, "entries": entries}).encode())
    assert result.returncode == 0, result.stderr


def view(path):
    result = crit("decode", "-i", path)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["entries"]


def core(name, state=1, thread=False):
    registers = {register: 0x1000 + at for at, register in enumerate(REGISTERS)}
    entry = {"mtype": "X86_64", "thread_info": {
        "clear_tid_addr": 0, "gpregs": registers,
        "fpregs": dict.fromkeys("cwd swd twd fop rip rdp mxcsr mxcsr_mask".split(), 0)}}
    if not thread:
        entry["tc"] = {"task_state": state, "exit_code": 0, "personality": 0, "flags": 0, "blk_sigset": 0, "comm": name}
    entry["thread_core"] = {"futex_rla": 0, "futex_rla_len": 0}
    if state == 2:
        del entry["thread_info"], entry["thread_core"]
    return entry


def area(start, pages, status, prot=3, shmid=0, pgoff=0, flags=0x22):
    return {"start": start, "end": start + pages * PAGE, "pgoff": pgoff, "shmid": shmid, "prot": prot, "flags": flags,
            "status": status, "fd": -1}


def mm(areas, exe=1):
    places = "start_code end_code start_data end_data start_stack start_brk brk arg_start arg_end env_start env_end"
    return {**{"mm_" + place: 0 for place in places.split()}, "exe_file_id": exe, "mm_saved_auxv": [6, PAGE, 0, 0],
            "vmas": areas}


def regular(number, name, **more):
    return {"type": "REG", "id": number,
            "reg": {"id": number, "flags": 0, "pos": 0, "fown": NO_OWNER, "name": name, **more}}


def pipe(number, pipe_id, flags):
    return {"type": "PIPE", "id": number, "pipe": {"id": number, "pipe_id": pipe_id, "flags": flags, "fown": NO_OWNER}}


def memory(directory, pid, pages):
    """pages: [(address, bytes)], the bytes a multiple of the page size."""
    put(directory, f"pagemap-{pid}.img", "PAGEMAP", [{"pages_id": pid}] + [
        {"vaddr": at, "compat_nr_pages": 0, "flags": 4, "nr_pages": len(bytes_) // PAGE} for at, bytes_ in pages])
    with open(os.path.join(directory, f"pages-{pid}.img"), "wb") as file:
        file.write(b"".join(bytes_ for _, bytes_ in pages))


def checkpoint(directory, executable="/bin/true"):
    """parent 10 with a thread 11, its child 12, stopped, with a name of its own making, and a zombie 13."""
    os.makedirs(directory, exist_ok=True)
    put(directory, "pstree.img", "PSTREE", [
        {"pid": 10, "ppid": 0, "pgid": 10, "sid": 10, "threads": [10, 11]},
        {"pid": 13, "ppid": 10, "pgid": 10, "sid": 10, "threads": [0]},
        {"pid": 12, "ppid": 10, "pgid": 10, "sid": 10, "threads": [12]}])
    put(directory, "core-10.img", "CORE", [core("parent")])
    put(directory, "core-11.img", "CORE", [core("", thread=True)])
    put(directory, "core-12.img", "CORE", [core("<b>&\"child", state=3)])
    put(directory, "core-13.img", "CORE", [core("gone", state=2)])
    put(directory, "files.img", "FILES", [
        regular(1, executable), regular(2, "/"), regular(3, "/tmp/shared"), pipe(4, 77, 0), pipe(5, 77, 1)])
    for pid, files in ((10, ((0, 3), (1, 5))), (12, ((0, 4), (7, 3)))):
        put(directory, f"ids-{pid}.img", "IDS", [{"vm_id": pid, "files_id": pid, "fs_id": pid, "sighand_id": pid}])
        put(directory, f"fs-{pid}.img", "FS", [{"cwd_id": 2, "root_id": 2}])
        put(directory, f"fdinfo-{pid}.img", "FDINFO", [
            {"id": number, "flags": 0, "type": "REG" if number == 3 else "PIPE", "fd": fd} for fd, number in files])
        put(directory, f"mm-{pid}.img", "MM", [mm([
            area(0x400000, 4, 0x41, prot=5, shmid=1), area(0x600000, 12, 0x221), area(0x700000, 4, 0x81, shmid=3),
            area(0x7f0000, 4, 0x101, shmid=5000), area(0x800000, 64, 0x201, prot=0),
            area(0x7ffe000, 4, 0x201, flags=0x122), area(0xffffffffff600000, 1, 0x4, prot=5)])])
        memory(directory, pid, [(0x600000, b"h" * PAGE * 3), (0x7ffe000, b"s" * PAGE)])
    put(directory, "stats-dump", "STATS", [{"dump": {
        "freezing_time": 1000, "frozen_time": 40000, "memdump_time": 10000, "memwrite_time": 20000, "pages_scanned": 90,
        "pages_skipped_parent": 0, "pages_written": 8, "pages_lazy": 0}}])
