"""A simulated attempt from its first step on: it ends with the last step, a loss, a notice, or to go on with more."""

import math

from scaletrain import policy
from scaletrain.simulate.account import Account
from scaletrain.simulate.machines import Loss, Machines
from scaletrain.simulate.setting import Setting
from scaletrain.simulate.timeline import Timeline


class Training:
    """One attempt; `line` is what it would do undisturbed, `began_s` when its start began."""

    def __init__(
        self, setting: Setting, machines: Machines, account: Account, line: Timeline, *, began_s: float, workers: int
    ) -> None:
        self._setting, self._machines, self._account, self._line = setting, machines, account, line
        self._began_s, self._workers = began_s, workers
        self._taken: Loss | None = None  # the last loss whose machines are not counted any more
        self._first_step_s = line.end_of_step(line.first_step + 1)
        self._end_s = line.end_of_step(setting.steps)
        self._wanted = machines.needed(setting.most)
        self._may_ask = machines.group < self._wanted

    def train(self, told: Loss | None) -> bool:
        """Train to the attempt's end, which is near where it is `told` of a loss; returns whether a loss ended it."""
        machines = self._machines
        if told is not None:
            return self._leave(told)
        while True:
            loss = machines.advance(min(self._end_s, self._next_look()))
            if loss is not None and not self._is_of_spares(loss):
                return self._leave(loss) if machines.notice_of(loss) else self._lose(loss, "lost")
            if machines.now_s >= self._end_s:
                return self._close(self._setting.steps, "finished")
            self._ask_for_more()
            if self._should_grow():
                return self._close(self._line.steps_at(machines.now_s) + 1, "grew")

    # ---- growing ---------------------------------------------------------------------------------------------------

    def _next_look(self) -> float:
        """When something may have to be decided about more workers; infinite where nothing will."""
        machines = self._machines
        if self._may_ask and machines.now_s < self._first_step_s:
            return self._first_step_s
        if machines.up == machines.group:
            return math.inf
        settled_s = machines.changed_s + policy.GROWTH_SETTLE_S
        return min((time_s for time_s in (self._from_s, settled_s) if time_s > machines.now_s), default=math.inf)

    @property
    def _from_s(self) -> float:
        return policy.growth_from_s(began_s=self._began_s, first_step_s=self._first_step_s)

    def _ask_for_more(self) -> None:
        """Ask for the workers that are missing, from the first step on, where that is worth it."""
        machines = self._machines
        if self._may_ask and machines.now_s >= self._first_step_s:
            self._may_ask = False
            if policy.growth_is_worth_it(self._end_s - machines.now_s):
                machines.ask(self._wanted)

    def _should_grow(self) -> bool:
        machines = self._machines
        return policy.growth_is_worth_it(self._end_s - machines.now_s) and policy.should_grow(
            there=machines.up - machines.group,
            missing=self._wanted - machines.group,
            now_s=machines.now_s,
            from_s=self._from_s,
            unchanged_s=machines.now_s - machines.changed_s,
        )

    def _is_of_spares(self, loss: Loss) -> bool:
        """Whether a loss hits only machines that wait to be taken in; they are gone then, and asked for again."""
        machines = self._machines
        if machines.up == machines.group:
            return False
        self._taken = loss
        if machines.lose(loss):
            return False
        machines.ask(self._wanted)
        return True

    # ---- ends ------------------------------------------------------------------------------------------------------

    def _close(self, step: int, why: str) -> bool:
        """Do the steps up to `step`, save, and end once that is committed, if no machine is lost before."""
        machines, done_s = self._machines, self._line.end_of_step(step)
        committed_s = self._committed_after(step)
        while machines.now_s < committed_s:
            loss = machines.advance(committed_s)
            if loss is None or self._is_of_spares(loss):
                continue
            if loss.time_s + machines.notice_of(loss) < committed_s:
                return self._lose(loss, "lost", most=step)
            machines.go_to(committed_s)
            self._take_away(loss)
        return self._keep(step, done_s, why)

    def _leave(self, loss: Loss) -> bool:
        """Machines are told that they will be taken: finish the step, save if that can be in time, and end."""
        line, machines, setting = self._line, self._machines, self._setting
        gone_s = loss.time_s + setting.notice_s
        seen_s = max(line.start_s, loss.time_s + setting.notice_seen_s)
        step = min(line.steps_at(seen_s) + 1, setting.steps)
        done_s = line.end_of_step(step)
        stored_s, before_s = line.under_way_until(step)
        takes_s = line.upload_s if line.committed_at(done_s) > line.first_step else None
        under_way_for_s = done_s - stored_s if before_s > done_s else None
        if done_s > gone_s:
            machines.go_to(gone_s)
        elif policy.save_fits(gone_s - done_s, takes_s=takes_s, under_way_for_s=under_way_for_s):
            committed_s = self._committed_after(step)
            machines.go_to(min(gone_s, committed_s))
            if committed_s <= gone_s:
                self._take_away(loss)
                return self._keep(step, done_s, "finished" if step == setting.steps else "left")
        else:  # it ends at once, with what is under way
            machines.go_to(min(gone_s, max(done_s, before_s)))
        return self._lose(loss, "lost though told", most=step)

    def _lose(self, loss: Loss, why: str, *, most: int | None = None) -> bool:
        """End with what is committed; the attempt has made no more than `most` steps."""
        now_s = self._machines.now_s
        self._take_away(loss)
        most = self._setting.steps if most is None else most
        committed = self._line.committed_at(now_s, before_step=most)
        self._put_down(committed)
        self._account.spend("lost_work")
        self._end(min(self._line.steps_at(now_s), most), committed, why)
        return True

    def _keep(self, step: int, done_s: float, why: str) -> bool:
        """End with all steps committed, the last of which was done at `done_s`."""
        self._put_down(step)
        self._account.spend("checkpoint_stall", done_s + self._line.stall_s)
        self._account.spend("shut_down" if step >= self._setting.steps else "recovery")
        self._end(step, step, why)
        return False

    def _committed_after(self, step: int) -> float:
        """When `step` is committed, where it is saved as the last one."""
        _, before_s = self._line.under_way_until(step)
        return max(self._line.end_of_step(step), before_s) + self._line.stall_s + self._line.upload_s

    def _put_down(self, step: int) -> None:
        """Put the time until `step` is done down to steps and to saving."""
        line = self._line
        self._account.spend("productive", line.start_s + (step - line.first_step) * line.step_s)
        self._account.spend("checkpoint_stall", line.end_of_step(step))

    def _end(self, step: int, committed: int, why: str) -> None:
        first = self._line.first_step
        self._account.end(
            began_s=self._began_s,
            workers=self._workers,
            resumed_from=first,
            steps_done=step - first,
            committed=committed,
            why=why,
        )

    def _take_away(self, loss: Loss) -> None:
        """Let lost machines go, if that has not been done."""
        if loss is not self._taken:
            self._machines.lose(loss)
