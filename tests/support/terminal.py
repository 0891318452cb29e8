"""What a terminal shows: programs are run in a pseudo-terminal, and what they write is drawn on a screen of text."""

import os
import re
import select
import subprocess
import sys
from pathlib import Path


class Screen:
    """Lines of text, a cursor, and the few control codes that progress bars use."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = 0
        self.column = 0

    def write(self, text: str) -> None:
        for code, char in re.findall(r"\x1b\[(\d*[A-Za-z])|([^\x1b])", text):
            if code:
                count = int(code[:-1] or 1)
                if code.endswith("A"):
                    self.row = max(0, self.row - count)
                elif code.endswith("K"):
                    self.lines[self.row] = self.lines[self.row][: self.column]
            elif char == "\r":
                self.column = 0
            elif char == "\n":
                self.row += 1
                self.column = 0
                while len(self.lines) <= self.row:
                    self.lines.append("")
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
                self.column += 1

    def text(self) -> list[str]:
        return [line.rstrip() for line in self.lines]


def run_in_terminal(code: str, directory: Path, columns: int = 100) -> tuple[Screen, list[list[str]]]:
    """Run a program in a terminal; return the screen at the end, and the screens on the way.

    There is one before and after each control code, however the output was cut when it was read.
    """
    import fcntl
    import pty
    import struct
    import termios

    program = directory / "program.py"
    program.write_text(code)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen([sys.executable, str(program)], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the program has ended
                break
            if not data:
                break
            output += data
        assert process.wait(60) == 0, output
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    screen, frames = Screen(), []
    for piece in re.findall(r"\x1b\[\d*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", output.decode().replace("\r\n", "\n")):
        screen.write(piece)
        frames.append(screen.text())
    return screen, frames
