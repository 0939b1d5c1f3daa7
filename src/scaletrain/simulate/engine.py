"""One simulated run, from its first machine to its last commit; every decision in it is asked of scaletrain.policy.

Time jumps from one event to the next: machines come, are lost or are told that they will be, a group has started, more
workers are worth another start, the last step is done. What lies between two events is known in closed form (timeline).
"""

from collections.abc import Sequence
from random import Random

from scaletrain import policy
from scaletrain.simulate.account import Account
from scaletrain.simulate.machines import Loss, Machines
from scaletrain.simulate.setting import Outcome, Pool, Setting
from scaletrain.simulate.timeline import Timeline
from scaletrain.simulate.training import Training

_LOOK_S = 0.1  # after a time that a rule waits for, so that it has passed
_LONGEST = 10  # times as long as the undisturbed run, and nobody waits for it any more


def play(setting: Setting, pools: Sequence[Pool], *, seed: int, index: int) -> Outcome:
    """Simulate run `index`: the same seed and index give the same run. Each begins somewhere else in the trace."""
    random = Random(f"{seed}/{index}")
    offset_s = random.random() * max(pool.usd_per_hour.length_s for pool in pools)
    return _Run(setting, pools, Machines(setting, pools[0], random, offset_s=offset_s)).play()


class _Run:
    """The state of one run; `fruitless` are losses in a row without a commit in between."""

    def __init__(self, setting: Setting, pools: Sequence[Pool], machines: Machines) -> None:
        self._setting, self._pools, self._machines = setting, pools, machines
        self._account = Account(machines)
        self._has_begun, self._fruitless = False, 0

    def play(self) -> Outcome:
        """Go on until the last step is committed, or it has taken far too long."""
        setting, account = self._setting, self._account
        longest_s = _LONGEST * (setting.undisturbed_s + setting.start_s + setting.wait_s)
        while account.step < setting.steps and self._machines.now_s < longest_s:
            if not self._gather():
                self._give_up()
                continue
            before = account.step
            if self._attempt():
                self._machines.go_to(self._machines.now_s + setting.loss_seen_s)
                account.spend("recovery")
                self._fruitless = 0 if account.step > before else self._fruitless + 1
                if policy.gives_up(self._fruitless):
                    self._give_up()
        return account.outcome(steps=setting.steps)

    def _gather(self) -> bool:
        """Wait for machines, of one pool after the other; returns whether enough are there."""
        machines, setting = self._machines, self._setting
        held = machines.pool
        ordered = policy.order_candidates(self._pools, room_now=lambda pool: machines.up if pool is held else 0)
        share_s = policy.share_of_wait_s(setting.wait_s, len(ordered))
        for pool in ordered:
            if pool is not machines.pool:
                machines.move(pool)
            if self._wait(share_s):
                return True
        return False

    def _wait(self, wait_s: float) -> bool:
        """Hold what comes until it is enough, or the time has passed."""
        machines, setting = self._machines, self._setting
        start_s, wanted, least = machines.now_s, machines.needed(setting.most), machines.needed(setting.least)
        machines.ask(wanted)
        looks_s = (start_s + policy.COMING_SETTLE_S, start_s + policy.COMING_GRACE_S, start_s + wait_s)
        while machines.up < wanted and machines.now_s < start_s + wait_s:
            since_s = max(start_s, machines.changed_s)
            takes = machines.up >= least and policy.takes_what_is_there(
                machines.now_s - start_s,
                unchanged_s=machines.now_s - since_s,
                is_coming=machines.is_coming,
                autoscales=True,
                eager=self._has_begun,
            )
            if takes:
                break
            settled_s = since_s + policy.EAGER_S + _LOOK_S
            ahead_s = [time_s for time_s in (*looks_s, settled_s) if time_s > machines.now_s]
            if loss := machines.advance(min(ahead_s)):
                machines.lose(loss)
                machines.ask(wanted)
        self._account.spend("waiting")
        machines.ask_no_more()
        machines.group = machines.up
        return machines.up >= least

    def _give_up(self) -> None:
        """The command ends with an error, its machines go, and somebody types it again."""
        self._machines.move(self._machines.pool)
        self._machines.go_to(self._machines.now_s + self._setting.by_hand_s)
        self._account.spend("idle")
        self._account.commands += 1
        self._has_begun, self._fruitless = False, 0

    def _attempt(self) -> bool:
        """Start a group on the machines that are there, and train until it ends; returns whether a loss ended it."""
        machines, setting, account = self._machines, self._setting, self._account
        began_s, first_step, workers = machines.now_s, account.step, machines.workers(machines.group)
        part = setting.part_of(workers)
        ready_s = began_s + setting.start_s + (setting.restore_s * part if first_step else 0.0)
        step_s = setting.step_s(workers, speed=machines.pool.speed)
        told, is_lost = self._start_group(ready_s, step_s)
        account.spend("recovery" if self._has_begun else "start_up")
        if is_lost:
            account.end(
                began_s=began_s,
                workers=workers,
                resumed_from=first_step,
                steps_done=0,
                committed=first_step,
                why="lost at its start",
            )
            return True
        self._has_begun = True
        line = Timeline(
            machines.now_s, first_step, setting.every_steps, step_s, setting.stall_s * part, setting.upload_s * part
        )
        return Training(setting, machines, account, line, began_s=began_s, workers=workers).train(told)

    def _start_group(self, ready_s: float, step_s: float) -> tuple[Loss | None, bool]:
        """Let the group start; returns a loss that it was told of and gets to act on, and whether one has ended it.

        Only steps ask whether there was a notice: one that comes before is acted on after the first step.
        """
        machines = self._machines
        while machines.now_s < ready_s:
            loss = machines.advance(ready_s)
            if loss is None:
                continue
            gone_s = loss.time_s + machines.notice_of(loss)
            if gone_s >= ready_s + step_s:
                machines.go_to(ready_s)
                return loss, False
            machines.go_to(gone_s)
            machines.lose(loss)
            return None, True
        return None, False
