"""How often a trainer reads what lies on its device, agrees with its team on whether to go on, and saves."""

import time

from cnnzoo.train.distributed import Team

ALONE = 0.25  # seconds after which a single process syncs
TEAM_STEPS, TEAM_SECONDS = 8, 2.0  # after which a team does at the latest: at a step on which all agree


class Pace:
    """Of an epoch: when the losses of the latest steps are read, and when the run is saved within it."""

    def __init__(self, team: Team, save_minutes: float):
        self.team, self.save_seconds = team, 60 * save_minutes
        self.now = self.saved = self.synced = time.monotonic()
        self.steps, self.every = 0, 1  # since the latest sync; of a team, from one to the next

    def step(self, stop: bool) -> tuple[bool, bool]:
        """After each step, where the run is to `stop` or not: whether to sync now, and whether to save."""
        self.now = time.monotonic()
        self.steps += 1
        save = self.now - self.saved >= self.save_seconds
        if self.team.size > 1:
            return self.steps >= self.every, save
        return stop or save or self.now - self.synced >= ALONE, save

    def sync(self) -> None:
        """All that was due is read; a team agrees on the next time, by the mean of what its steps took."""
        if self.team.size > 1:
            seconds = self.team.mean(self.now - self.synced) / self.steps
            self.every = min(max(int(TEAM_SECONDS / max(seconds, 1e-3)), 1), TEAM_STEPS)
        self.synced, self.steps = self.now, 0

    def save(self) -> None:
        """The run is saved."""
        self.saved = self.now
