"""Make the README's pictures: docs/run.svg, the terminal during a real run, and docs/report.png, the top of
its report.

    python3 testdata/pictures.py bin/ptune          (docs/report.png needs chromium)
"""
import fcntl, html, os, pty, re, shutil, struct, subprocess, sys, tempfile, termios

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT, exe = os.path.dirname(HERE), os.path.abspath(sys.argv[1])


def terminal(args, until):
    """Run a command on a terminal. Return the lines on the screen when one of them matches until."""
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
        os.chdir(ROOT)
        os.execve(exe, ["ptune", *args], dict(os.environ, TERM="xterm"))
    raw = b""
    try:
        while more := os.read(fd, 4096):
            raw += more
    except OSError:  # end of output, on Linux
        pass
    os.waitpid(pid, 0)
    lines = [""]
    for part in raw.decode().replace("\r\n", "\n").replace("\x1b[K", "").split("\n"):
        for shown in part.split("\r"):
            lines[-1] = shown or lines[-1]
            if re.search(until, shown):
                return lines
        lines.append("")
    return lines


# The bar is drawn every 0.1 s. Stop at the first one between steps 90 and 99.
lines = ["$ ptune train configs/stars.yaml"] + terminal(["train", "configs/stars.yaml", "--force"], r"] +9\d/200")
width, height = 8.43 * max(map(len, lines)) + 40, 19 * len(lines) + 28
with open(os.path.join(ROOT, "docs/run.svg"), "w") as f:
    f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14">\n')
    f.write(f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#16181d"/>\n')
    for i, line in enumerate(lines):
        f.write(f'<text x="14" y="{28 + 19 * i}" fill="{"#7fd1ae" if line.startswith("$") else "#d7dae0"}" xml:space="preserve">{html.escape(line)}</text>\n')
    f.write("</svg>\n")

if shutil.which("chromium"):
    with tempfile.TemporaryDirectory() as work:
        page = os.path.join(work, "report.html")
        subprocess.run([exe, "report", "runs/stars", "--output", page], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={work}/profile", "--window-size=1000,860",
                        f"--screenshot={ROOT}/docs/report.png", "file://" + page], check=True, stderr=subprocess.DEVNULL)
