#!/usr/bin/python3
# What a QEMU is that its guest took over: any program, with all that QEMU holds,
# in the jail that kiln makes for it. It speaks as much QMP as it takes to be
# given all the rest, then tries whatever it can think of. What came of it goes
# to `report` in its own directory, a line for each attempt:
#
#   name <tab> stopped | OPEN | note <tab> why
#
# `OPEN` is a hole; a `note` is what the jail does not claim to stop. The last
# line is `end`. FACTS, which the test fills in, is what lies outside.

import array, ctypes, errno, fcntl, json, mmap, os, re, signal, socket, struct, sys, traceback

FACTS = json.loads(r"""@FACTS@""")

if sys.argv[1:] == ["--version"]:
    print(FACTS["version"])
    sys.exit()

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
report = open("report", "w", buffering=1)


def say(name, result, why):
    report.write("%s\t%s\t%s\n" % (name, result, " ".join(str(why).split())))


def stopped(name, attempt, *, note=False):
    """The attempt is to fail with an OSError; whatever it returns is loot."""
    try:
        loot = attempt()
    except OSError as error:
        say(name, "stopped", error.strerror or error)
    except Exception as error:
        say(name, "OPEN", "the attempt itself is wrong: %r" % error)
    else:
        say(name, "note" if note else "OPEN", loot)


def check(name, good, why):
    say(name, "stopped" if good else "OPEN", why)


def syscall(number, *arguments):
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def read(path):
    with open(path, "rb") as file:
        return file.read(64)


# --- what QEMU is given ----------------------------------------------------------------------------

words = " ".join(sys.argv)
control = socket.socket(fileno=int(re.search(r"id=control,fd=(\d+)", words)[1]))
console = int(re.search(r"id=console,fd=(\d+)", words)[1])
port = int(re.search(r"id=guest,fd=(\d+)", words)[1])
memory = int(re.search(r"mem-path=/proc/self/fd/(\d+)", words)[1])
overlay = re.search(r"file=([^ ]+),format=qcow2,cache=unsafe", words)[1]
state = None


def lines():
    global state
    held = b""
    while True:
        data, ancillary, _, _ = control.recvmsg(65536, 1024)
        if not data:
            return
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % 4])
                state = fds[-1]
        held += data
        while b"\n" in held:
            line, held = held.split(b"\n", 1)
            yield json.loads(line)


def tell(message):
    control.sendall(json.dumps(message).encode() + b"\n")


# --- descriptors -----------------------------------------------------------------------------------

SEALS = 1033  # F_ADD_SEALS


def descriptor(name, fd):
    """A file that other guests start from, held open."""
    path = "/proc/self/fd/%d" % fd
    size = os.fstat(fd).st_size
    stopped(name + ": write", lambda: os.pwrite(fd, b"KILN-WAS-HERE", 0))
    stopped(name + ": truncate", lambda: os.ftruncate(fd, 0))
    stopped(name + ": grow", lambda: os.ftruncate(fd, size + 4096))
    stopped(name + ": punch a hole", lambda: syscall(285, fd, 3, 0, 4096))
    stopped(name + ": map shared for writing", lambda: mmap.mmap(fd, 1, mmap.MAP_SHARED, 3))
    stopped(name + ": map shared, then make writable", lambda: remap(fd))
    stopped(name + ": take a seal off or add one", lambda: fcntl.fcntl(fd, SEALS, 0x10))
    stopped(name + ": reopen and write", lambda: os.pwrite(os.open(path, os.O_RDWR), b"KILN-WAS-HERE", 0))
    stopped(name + ": reopen to append", lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b"KILN-WAS-HERE"))
    stopped(name + ": reopen and cut", lambda: emptied(path, size))
    stopped(name + ": reopen and map", lambda: mmap.mmap(os.open(path, os.O_RDWR), 1, mmap.MAP_SHARED, 3))
    stopped(name + ": chattr", lambda: fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0x10)))


def remap(fd):
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0))
    if at == ctypes.c_void_p(-1).value or libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(4096), 3) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    ctypes.memmove(at, b"KILN-WAS-HERE", 13)
    return "mapped"


def emptied(path, size):
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    if os.fstat(fd).st_size == size:
        raise OSError(errno.EPERM, "opened, but nothing was cut")
    return "cut"


def descriptors():
    known = {0, 1, 2, control.fileno(), console, port, memory, state, report.fileno()}
    others = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            others.add((int(number), os.readlink("/proc/self/fd/" + number)))
        except OSError:
            pass
    others = [pair for pair in others if pair[0] not in known and pair[1] != "/proc/%d/fd" % os.getpid()]
    check("no other descriptor is held", not others, others)
    descriptor("the memory's descriptor", memory)
    if state is None:
        say("the state's descriptor", "OPEN", "kiln gave none")
    else:
        descriptor("the state's descriptor", state)


# --- files -----------------------------------------------------------------------------------------


def shared_files():
    """The image, the template and the programs, by their paths."""
    for name, path in FACTS["shared"].items():
        if not os.path.exists(path):
            say(name, "OPEN", "it is not there: nothing is tried")
            continue
        stopped(name + ": open for writing", lambda: os.open(path, os.O_RDWR))
        stopped(name + ": reopen for writing", lambda: os.open("/proc/self/fd/%d" % os.open(path, os.O_RDONLY), os.O_RDWR))
        stopped(name + ": reopen a handle for writing", lambda: os.open("/proc/self/fd/%d" % os.open(path, os.O_PATH), os.O_RDWR))
        stopped(name + ": truncate", lambda: os.truncate(path, 0))
        stopped(name + ": map shared for writing", lambda: mmap.mmap(os.open(path, os.O_RDONLY), 1, mmap.MAP_SHARED, 3))
        stopped(name + ": punch a hole", lambda: syscall(285, os.open(path, os.O_RDONLY), 3, 0, 4096))
        stopped(name + ": remove", lambda: os.unlink(path))
        stopped(name + ": rename", lambda: os.rename(path, path + ".old"))
        stopped(name + ": link into its own directory", lambda: os.link(path, "linked"))
        stopped(name + ": change the mode", lambda: os.chmod(path, 0o666))
        stopped(name + ": change the times", lambda: os.utime(path, (0, 0)))
        stopped(name + ": an attribute", lambda: os.setxattr(path, "user.kiln", b"x"))
    # The host's own, which a hole must not harm: they are only opened.
    for path in FACTS["programs"]:
        stopped(path + ": open for writing", lambda: os.open(path, os.O_RDWR))
        stopped(path + ": reopen for writing", lambda: os.open("/proc/self/fd/%d" % os.open(path, os.O_RDONLY), os.O_RDWR))
    for name, path in FACTS["directories"].items():
        stopped(name + ": a new file", lambda: open(os.path.join(path, "kiln-was-here"), "w"))


def host_files():
    for path in FACTS["hidden"]:
        stopped("sees " + path, lambda: read(path) if not os.path.isdir(path) else os.listdir(path))
    for name, path in FACTS["secrets"].items():
        stopped("reads " + name, lambda: read(path))
        stopped("reads %s by a link in its own directory" % name, lambda: by_link(path))
        stopped("reads %s by init's root" % name, lambda: read("/proc/1/root" + path))
        stopped("reads %s by .. from its own directory" % name, lambda: read("../" * 40 + path.lstrip("/")))
    visible = sorted(os.listdir("/"))
    wanted = FACTS["top"]
    check("nothing of kiln's is in its own directory", set(os.listdir(".")) == {"disk.qcow2", "report"}, os.listdir("."))
    check("the root has nothing else", set(visible) <= set(wanted), visible)
    check("/etc has nothing of the host", set(os.listdir("/etc")) <= {"alternatives", "ld.so.cache", "passwd", "group", "hosts", "resolv.conf"}, os.listdir("/etc"))
    check("/dev has harmless devices only", set(os.listdir("/dev")) <= {"full", "kvm", "null", "random", "urandom", "zero"}, os.listdir("/dev"))
    check("/proc has processes only", all(n.isdigit() or n in ("self", "thread-self") for n in os.listdir("/proc")), [n for n in os.listdir("/proc") if not n.isdigit()])
    stopped("opens a file of the host by its handle", lambda: syscall(304, -100, ctypes.byref(ctypes.create_string_buffer(struct.pack("II", 8, 1) + b"\2\0\0\0\0\0\0\0")), 0))


def by_link(path):
    if os.path.lexists("link"):
        os.unlink("link")
    os.symlink(path, "link")
    try:
        return read("link")
    finally:
        os.unlink("link")


# --- processes -------------------------------------------------------------------------------------


def processes():
    seen = [int(n) for n in os.listdir("/proc") if n.isdigit()]
    check("sees no process but its namespace's", set(seen) == {1, os.getpid()}, seen)
    for name, pid in FACTS["processes"].items():
        stopped("signals " + name, lambda: os.kill(pid, 0))
        stopped("reads the environment of " + name, lambda: read("/proc/%d/environ" % pid))
    for what in ["environ", "mem", "maps", "auxv", "io", "stack", "syscall"]:
        stopped("reads init's " + what, lambda: read("/proc/1/" + what))
    stopped("lists init's map_files", lambda: os.listdir("/proc/1/map_files"))
    # Their numbers may be seen, where the kernel shows them.
    for number in [0, 1, 2]:
        stopped("opens init's descriptor %d" % number, lambda: os.open("/proc/1/fd/%d" % number, os.O_RDONLY))
        stopped("follows init's descriptor %d" % number, lambda: os.readlink("/proc/1/fd/%d" % number))
    for what in ["cwd", "root", "exe"]:
        stopped("follows init's " + what, lambda: os.readlink("/proc/1/" + what))
    stopped("writes init's memory", lambda: open("/proc/1/mem", "wb"))
    stopped("attaches to init", lambda: syscall(101, 16, 1, 0, 0))
    stopped("seizes init", lambda: syscall(101, 0x4206, 1, 0, 0))
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)
    stopped("reads init's memory by process_vm_readv", lambda: syscall(310, 1, ctypes.byref(vector), 1, ctypes.byref(vector), 1, 0))
    stopped("takes a descriptor of init's", lambda: syscall(438, syscall(434, 1, 0), 0, 0))
    # The kernel ignores what an init does not wait for.
    for number in [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]:
        os.kill(1, number)
    try:
        os.kill(-1, signal.SIGCONT)
    except OSError:
        pass  # There is nobody else.
    check("init outlives its signals", os.path.exists("/proc/1/status") and "stopped" not in open("/proc/1/status").read(), "alive")
    for kind in ["user", "mnt", "net", "pid", "ipc", "uts"]:
        stopped("enters init's %s namespace" % kind, lambda: syscall(308, os.open("/proc/1/ns/" + kind, os.O_RDONLY), 0))
    peer()
    stopped("reads shared memory of the host", lambda: syscall(30, FACTS["shm"], 0, 0))
    check("its environment is QEMU's own", set(os.environ) <= {"PATH", "LC_CTYPE"}, dict(os.environ))
    check("nothing of kiln's environment is there", FACTS["environment"] not in str(dict(os.environ)), "")
    stopped("a keyring of the host's", keyring)


def peer():
    """The other end of QEMU's control socket is kiln itself."""
    pid = struct.unpack("iii", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    check("kiln's number is not known", pid == 0, pid)
    try:
        handle = control.getsockopt(socket.SOL_SOCKET, 77)  # SO_PEERPIDFD
    except OSError as error:
        # Before Linux 6.5; or kiln is in no namespace of ours.
        handle = None
        say("signals kiln by its socket", "stopped", error.strerror)
        say("takes a descriptor of kiln's", "stopped", error.strerror)
        say("enters kiln's namespaces", "stopped", error.strerror)
    if handle is not None:
        stopped("signals kiln by its socket", lambda: syscall(424, handle, 0, None, 0))
        stopped("takes a descriptor of kiln's", lambda: syscall(438, handle, 0, 0))
        stopped("enters kiln's namespaces", lambda: syscall(308, handle, 0x00020000))


def keyring():
    """What kiln's caller keeps in its session's keyring."""
    key = syscall(250, 10, -3, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"kiln-test"), 0)
    buffer = ctypes.create_string_buffer(64)
    length = syscall(250, 11, key, buffer, 64)
    return buffer.raw[:length]


# --- rights ----------------------------------------------------------------------------------------

NAMESPACES = {"user": 0x10000000, "mount": 0x00020000, "pid": 0x20000000, "network": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000, "cgroup": 0x02000000}
text = ctypes.c_char_p


def rights():
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        check("no capability in " + name, int(status[name], 16) == 0, status[name])
    check("no new privileges", status["NoNewPrivs"] == "1", status["NoNewPrivs"])
    for name, flag in NAMESPACES.items():
        stopped("makes a %s namespace" % name, lambda: syscall(272, flag))
    stopped("clones into a user namespace", cloned)
    stopped("mounts a tmpfs", lambda: syscall(165, text(b"t"), text(b"/tmp"), text(b"tmpfs"), 0, 0))
    stopped("mounts /proc", lambda: syscall(165, text(b"p"), text(b"/tmp"), text(b"proc"), 0, 0))
    stopped("binds a directory", lambda: syscall(165, text(b"/usr"), text(b"/tmp"), 0, 4096, 0))
    for path in ["/", "/usr", *FACTS["directories"].values()]:
        stopped("makes the mount of %s writable" % path, lambda: syscall(165, 0, text(path.encode()), 0, 4096 | 32, 0))
    stopped("takes a mount off", lambda: syscall(166, text(b"/usr"), 2))
    stopped("opens a new file system", lambda: syscall(430, text(b"tmpfs"), 0))
    stopped("copies a mount", lambda: syscall(428, -100, text(b"/usr"), 1))
    stopped("changes a mount's flags", lambda: syscall(442, -100, text(b"/usr"), 0, struct.pack("QQQQ", 0, 1, 0, 0), 32))
    stopped("changes its root", lambda: os.chroot("/tmp"))
    stopped("pivots its root", lambda: syscall(155, text(b"/tmp"), text(b"/tmp")))
    stopped("makes a device", lambda: os.mknod("/tmp/device", 0o20600, os.makedev(1, 1)))
    stopped("becomes another user", lambda: os.setuid(12345))
    stopped("takes other groups", lambda: os.setgroups([0]))
    stopped("names the host", lambda: socket.sethostname("mine"))
    stopped("sets the clock", lambda: syscall(159, ctypes.create_string_buffer(struct.pack("I84xq", 0x4000, 10000) + bytes(112))))
    stopped("loads a kernel module", lambda: syscall(175, text(b""), 0, text(b"")))
    stopped("reboots", lambda: syscall(169, 0xFEE1DEAD - (1 << 32), 672274793, 0, 0))
    stopped("swaps", lambda: syscall(167, text(b"/tmp"), 0))
    stopped("counts as real-time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
    stopped("writes the kernel's log", lambda: syscall(103, 5, 0, 0))
    stopped("opens a port of the machine", lambda: syscall(173, 0x80, 1, 1))
    # QEMU's own filter (-sandbox), which this program has not, is for these;
    # what the kernel allows to anybody is no right of the jail's to take.
    stopped("reads the kernel's log", lambda: syscall(103, 3, ctypes.create_string_buffer(64), 64), note=True)
    stopped("loads a BPF program", lambda: syscall(321, 0, ctypes.create_string_buffer(struct.pack("IIII", 2, 4, 4, 1) + bytes(112)), 128), note=True)
    stopped("watches the processor", lambda: syscall(298, ctypes.create_string_buffer(struct.pack("II", 1, 128) + bytes(120)), 0, -1, -1, 0), note=True)
    stopped("handles page faults", lambda: syscall(323, 1), note=True)
    stopped("has an io_uring", lambda: syscall(425, 1, ctypes.create_string_buffer(120)), note=True)
    stopped("starts a program", lambda: os.posix_spawn("/bin/true", ["true"], {}), note=True)
    stopped("speaks to the hypervisor (vsock)", lambda: socket.socket(40, socket.SOCK_STREAM), note=True)


def cloned():
    if syscall(56, 0x10000000 | 17, 0, 0, 0, 0) == 0:
        os._exit(0)
    return "a child"


def terminal():
    stopped("opens the terminal", lambda: os.open("/dev/tty", os.O_RDWR))
    for fd in [0, 1, 2, console]:
        stopped("types into descriptor %s" % {console: "console"}.get(fd, fd), lambda: fcntl.ioctl(fd, 0x5412, b"x"))


# --- network ---------------------------------------------------------------------------------------


def fetch(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(3)
        stream.connect(address)
        loot = stream.recv(64)
        if not loot:
            raise OSError(errno.ECONNRESET, "it says nothing")
        return loot


def network():
    port = FACTS["port"]
    stopped("reaches the host's loopback", lambda: fetch(socket.AF_INET, ("127.0.0.1", port)))
    stopped("reaches the host by its uplink", lambda: fetch(socket.AF_INET, ("10.0.3.2", port)))
    stopped("reaches the host by QEMU's gateway", lambda: fetch(socket.AF_INET, ("10.0.2.2", port)))
    for address in FACTS["addresses"]:
        stopped("reaches the host's own address", lambda: fetch(socket.AF_INET, (address, port)))
    stopped("reaches the host's loopback by IPv6", lambda: fetch(socket.AF_INET6, ("::1", port)))
    stopped("reaches an abstract socket of the host", lambda: fetch(socket.AF_UNIX, "\0" + FACTS["abstract"]))
    stopped("reaches a socket in the host's /tmp", lambda: fetch(socket.AF_UNIX, FACTS["socket"]))
    stopped("reaches the package manager's bus", lambda: fetch(socket.AF_UNIX, "/run/dbus/system_bus_socket"))
    stopped("opens a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
    stopped("opens a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
    stopped("opens the uplink's device", lambda: os.open("/dev/net/tun", os.O_RDWR))
    stopped("takes an interface down", lambda: interface_down("lo"))
    stopped("adds an address", lambda: netlink(0, 20, struct.pack("BBBBI", 2, 24, 0, 0, 1) + struct.pack("HH4s", 8, 2, bytes([10, 9, 8, 7]))))
    stopped("adds a route", lambda: netlink(0, 24, struct.pack("BBBBBBBBI", 2, 8, 0, 0, 254, 4, 0, 1, 0) + struct.pack("HH4s", 8, 1, bytes([10, 0, 0, 0])) + struct.pack("HHI", 8, 4, 1)))
    stopped("adds a table of rules", lambda: netlink(12, (10 << 8) | 0, struct.pack(">BBH", 2, 0, 0) + struct.pack("HH8s", 12, 1, b"evil\0")))
    stopped("flushes the rules", lambda: netlink(12, (10 << 8) | 2, struct.pack(">BBH", 0, 0, 0)))


def interface_down(name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", name.encode(), 0))


def netlink(protocol, kind, body):
    """One request, acknowledged; nftables wants its own in a batch."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as link:
        link.settimeout(3)
        message = lambda kind, flags, body: struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body
        if protocol == 12:
            edge = struct.pack(">BBH", 0, 0, 10)
            data = message(16, 1, edge) + message(kind, 5 | (0x400 if not kind & 2 else 0), body) + message(17, 1, edge)
        else:
            data = message(kind, 0x605, body)
        link.send(data)
        while True:
            answer = link.recv(65536)
            length, answered = struct.unpack("IH", answer[:6])
            if answered == 2:
                number = -struct.unpack("i", answer[16:20])[0]
                if number:
                    raise OSError(number, os.strerror(number))
                return "done"


# --- the conversation ------------------------------------------------------------------------------


def all_attempts():
    for group in [descriptors, shared_files, host_files, processes, rights, terminal, network]:
        report.write("# %s\n" % group.__name__)
        try:
            group()
        except BaseException:
            say(group.__name__, "OPEN", "did not get to its end: " + traceback.format_exc())
    report.write("end\n")


tell({"QMP": {"version": {}, "capabilities": []}})
for request in lines():
    answer = {}
    if request["execute"] == "query-status":
        answer = {"status": "paused", "running": False}
    elif request["execute"] == "human-monitor-command":
        answer = ""
    tell({"return": answer, "id": request["id"]})
    if request["execute"] == "cont":
        all_attempts()
