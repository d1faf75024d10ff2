"""A command from its flags to its exit code."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from app.bulk.finding import EXTENSIONS, Finder, MissingError
from app.bulk.jobs import JOBS
from app.bulk.manifest import ManifestError, in_manifest
from app.bulk.outputs import check_failures, failures_of, format_of, writer_of
from app.bulk.plan import ClashError, Picture, Plan
from app.bulk.progress import Progress
from app.bulk.session import Work, ask_all, on_a_loop
from app.bulk.verdicts import StoppedError
from app.bulk.window import Window
from app.bulk.writers.stream import put
from app.bulk.writers.writer import OutputError, Writer
from app.logs import complain
from app.start.bulk import Options, UsageError, options_of
from blip_client import BlipError

FAILED, WRONG = 1, 2


def main(command: str, flags: Mapping[str, Any]) -> int:
    """Returns the exit code: 0 all are done, 1 some are not, 2 it is wrong, 130 interrupted (143 by SIGTERM)."""
    try:
        options = options_of(command, flags)
        if not (options.url or options.settings):
            options = replace(options, url=os.environ.get("BLIP_URL") or None)
        job = JOBS[command](options)
        chosen = format_of(options)
        check_failures(options)
        writer = writer_of(options, chosen, job.columns)
        progress = Progress(options.quiet)
        with Plan() as plan:
            _fill(plan, options, writer, progress)
            if options.dry_run:
                return _show(plan)
            with closing(writer):
                writer.open()
                failures, listed = failures_of(options, writer, progress)
                work = Work(options, job, plan, writer, failures, progress, Window(options.concurrency))
                with closing(failures):
                    return _run(work, listed, summed_up=chosen != "terminal" and not options.quiet)
    except (UsageError, MissingError, ManifestError, ClashError) as error:
        complain(error)
        return WRONG
    except OutputError as error:
        return complain(error)
    except sqlite3.Error as error:
        return complain(f"cannot keep the list of pictures: {error} (TMPDIR names another folder for it)")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _fill(plan: Plan, options: Options, writer: Writer, progress: Progress) -> None:
    """Before anything is asked: whose captions clash is told before the first is written."""
    plan.mark_done(writer.written())
    for place, picture in _pictures(options, progress):
        plan.add(picture, place, target=writer.target(picture.path), done=writer.has(picture.path))


def _pictures(options: Options, progress: Progress) -> Iterator[tuple[int, Picture]]:
    if options.command == "capfilt":
        yield from enumerate(in_manifest(options.paths[0]))
        return
    chosen = [one.strip().lstrip(".").lower() for one in (options.ext or "").split(",")]
    extensions = frozenset(filter(None, chosen)) or EXTENSIONS
    finder = Finder(progress.tell, recursive=options.recursive, extensions=extensions)
    if sys.stdin is None and "-" in options.paths:  # ours is closed
        raise MissingError("there is no stdin")
    for place, argument in enumerate(options.paths):
        found = finder.listed(sys.stdin.buffer) if argument == "-" else finder.find(argument)
        for path in found:
            yield place, Picture(path)


def _show(plan: Plan) -> int:
    for picture in plan:
        put(os.fsencode(picture.path) + b"\n")
    print(f"blip-serve: {plan.num_to_do} to do, {plan.num_done} done already", file=sys.stderr)
    return 0


def _run(work: Work, listed: str, summed_up: bool) -> int:
    code = 0
    work.progress.num_skipped = work.plan.num_done
    try:
        if work.plan.num_to_do:
            code = on_a_loop(ask_all(work))
    except (StoppedError, BlipError, RuntimeError) as error:
        code = complain(error)
    finally:
        work.progress.end()
    if summed_up:
        print(f"blip-serve: {work.progress.line(listed)}", file=sys.stderr)
    return code or (FAILED if work.progress.num_failed else 0)
