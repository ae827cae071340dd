"""Commands that try claims out: those of lectures, and our own about speed."""

from collections.abc import Sequence
from json import dumps

from cnnzoo import atomic
from cnnzoo import config as config_
from cnnzoo.cli.speech import aside, tell
from cnnzoo.paths import expanded


def lab(name: str, *, out: str | None = None, seeds: int = 3, quick: bool = False, json: bool = False) -> int:
    """Try out what a lecture claims, and leave the figures (JSON) and a picture.

    The exit code is 1 where the claim did not hold.

    Args:
        name: of the lab; list tells which there are, and what each claims.
        out: the folder for NAME.json and NAME.png; by default labs/.
        seeds: how many times, each with random numbers of its own.
        quick: smaller, in seconds rather than minutes.
        json: print JSON, of the list or of the figures.
    """
    from cnnzoo import labs

    if name == "list":
        print(dumps(labs.claims()) if json else labs.overview())
        return 0
    found, folder = labs.find(name), expanded(out or "labs")
    atomic.check_writable(folder / f"{name}.json")
    say = aside if json else tell
    say(f"{found.claim}\n({found.source})")
    outcome = labs.run(name, seeds=seeds, quick=quick, tell=say)
    told, picture = outcome.save(folder)
    say(f"{outcome}; {told}, {picture}")
    if json:
        print(dumps(outcome.to_dict()))
    return int(not outcome.held)


def profile(
    *,
    config: str | None = None,
    steps: int = 8,
    out: str | None = None,
    json: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Tell where the time of a config's training steps goes, and write a trace; nothing is left of the training.

    Args:
        config: a YAML file, as for cnnzoo train.
        steps: how many are timed.
        out: the folder for trace.json and profile.json; by default profiles/ and the run folder's name.
        overrides: any key of the config, as --train.batch_size 64; see cnnzoo train --help.
    """
    from cnnzoo import profiling

    read = config_.read(config, overrides)
    result = profiling.profile(read, steps=steps, out=out, tell=aside)
    print(dumps(result.to_dict()) if json else result)


def benchmark(
    names: list[str] = (),
    *,
    quick: bool = False,
    minutes: float | None = None,
    out: str | None = None,
    json: bool = False,
) -> None:
    """Measure speed beside torchvision, timm and plain loops, in turn in one run; only the ratios are worth quoting.

    Args:
        names: of the suite, which cnnzoo benchmark list tells; by default all. Those that begin with G need a GPU.
        quick: two rounds rather than five.
        minutes: that all may take, of which each benchmark gets an even share of what is left; by default no limit.
        out: a folder for benchmark.json and benchmark.md.
    """
    from cnnzoo import benchmark as suite

    if list(names) == ["list"]:
        about = {each.name: each.about for each in suite.SUITE.values()}
        print(dumps(about) if json else "\n".join(f"{name:<4} {what}" for name, what in about.items()))
        return
    say = aside if json else tell
    if out:
        out = expanded(out)
        out.mkdir(parents=True, exist_ok=True)  # complains now rather than after an hour
    options = {"rounds": 2 if quick else 5, "minutes": minutes}
    results = suite.run(names, **options, tell=say, keep=lambda found: out and found.write(out))
    if json:
        print(dumps(results.to_dict()))
    if out:
        say(f"tables: {out}")
