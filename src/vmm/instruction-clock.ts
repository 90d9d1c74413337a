// Virtual time of the deterministic mode: it goes on with the instructions that the vCPUs retire, by a fixed ratio, and leaps while all of them
// are halted. Nothing of the host is in it, so two runs of the same machine see the same times.

import type { MachineClock } from "./clock.ts";

/** Virtual nanoseconds an instruction: 250 million of them a second, about what the interpreter does. */
export const NS_PER_INSTRUCTION = 4;

/** Whoever retires instructions; the count includes a run in progress. */
export interface InstructionCounter {
  retired(): number;
}

export class InstructionClock implements MachineClock {
  /** The time when the present run began, or where nobody runs. */
  private settled = 0;
  private running: InstructionCounter | undefined;
  private before = 0;

  now(): number {
    if (this.running === undefined) return this.settled;
    return this.settled + (this.running.retired() - this.before) * NS_PER_INSTRUCTION;
  }

  /** What `counter` retires from now on is time. */
  begin(counter: InstructionCounter): void {
    this.running = counter;
    this.before = counter.retired();
  }

  end(): void {
    this.settled = this.now();
    this.running = undefined;
  }

  /** Leaps to a later time, while nobody runs. */
  skipTo(ns: number): void {
    if (ns > this.settled) this.settled = Math.ceil(ns);
  }

  /** It stands still by itself where nothing is executed. */
  start(): void {}

  stop(): void {}

  /** Sets the time to go on from (restore of a snapshot). */
  setTime(ns: number): void {
    this.settled = ns;
  }
}
