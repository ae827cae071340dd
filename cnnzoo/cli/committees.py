"""Commands that make one classifier of several runs."""

from json import dumps

from cnnzoo.cli.speech import aside, go_on_with, numbers, tell


def soup(runs: list[str], *, method: str = "greedy", run: str | None = None, device: str = "auto") -> None:
    """Average the weights of runs that were fine-tuned from the same weights: one net, as fast as any of them.

    Args:
        runs: run folders of the same net, classes, preprocessing and split.
        method: greedy (from the best on, each that does not lower the validation accuracy) or uniform (all).
        run: the run folder; by default runs/soup.
    """
    import cnnzoo

    go_on_with(cnnzoo.soup(runs, method, run=run, device=device, tell=tell))


def ensemble(
    runs: list[str],
    *,
    method: str = "mean",
    weights: str | None = None,
    data: str | None = None,
    root: str | None = None,
    seed: int = 0,
    run: str | None = None,
    why: str | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Combine runs into a committee that predicts, evaluates, exports and reports like any run.

    Args:
        runs: two or more run folders; nets may differ in all but the names of their classes.
        method: vote, plurality, mean (of probabilities), logits, geometric, rank, weighted, greedy, stacking; or all: a
            table of them, and with --run a committee by the best.
        weights: of the members, such as 0.5,0.3,0.2, for a method that finds none by itself.
        data: images that no member was trained on, to fit on and judge by; by default those that all held out.
        seed: of the parts for cross-fitting.
        run: the run folder; by default runs/committee_DATA_METHOD.
        why: explain in this new folder, by tables and pictures, what the committee has over its members.
        device: auto (CUDA, else MPS, else CPU), cpu, mps, cuda …, for predictions that must be made.
    """
    import cnnzoo
    from cnnzoo.ensemble import dossier

    say, given = aside if json else tell, numbers("--weights", weights) if weights else None
    if run:
        cnnzoo.Run.new(run)  # complains now rather than after the work
    if why:
        dossier.check(why)
    options = {"data": data, "root": root, "weights": given, "seed": seed, "device": device, "tell": say}
    made = cnnzoo.Ensemble(runs, method, **options)
    print(dumps(made.contest.to_dict()) if json else made)
    if why:
        say(str(made.diversity(why)))
    if run or method != "all":
        go_on_with(made.save(run), say)


def vote_odds(*, p: str = "0.7", n: int | None = None, out: str | None = None, json: bool = False) -> None:
    """Tell what independent members reach by majority vote: the binomial formula, term by term, and a simulation.

    Args:
        p: the probability with which a member is right; or those of members that differ, such as 0.6,0.7,0.8.
        n: how many members, 3 by default.
        out: draw the committee's accuracy over its size into this file.
    """
    import cnnzoo

    accuracies = numbers("--p", p)
    odds = cnnzoo.vote_odds(accuracies if len(accuracies) > 1 else accuracies[0], n, out=out)
    simulated = odds.simulate(votes := 100_000)
    if json:
        print(dumps(odds.to_dict() | {"simulated": simulated}))
    else:
        print(f"{odds}\nsimulated: right in {simulated:.2%} of {votes:,} votes")
