// The local APIC timer: one-shot, periodic and TSC-deadline mode, all of them a deadline in virtual time.
// SDM Vol. 3A 11.5.4 (APIC timer, divide configuration register), 11.5.4.1 (TSC-deadline mode).
//
// Nothing counts. `expiry` is the absolute time at which the count reaches zero, the current count is computed from it,
// and a periodic timer that nobody can see (masked) is not even armed: its next expiry follows from its phase.

import type { Timer, TimerQueue } from "../clock.ts";
import type { Schema, Stateful } from "../state.ts";
import { LVT_MASKED } from "./lapic-registers.ts";

export const TimerMode = { ONE_SHOT: 0, PERIODIC: 1, TSC_DEADLINE: 2, RESERVED: 3 } as const;

/**
 * The shortest time between two interrupts of a periodic timer; a guest that asks for more gets each n-th. Otherwise a count of 1
 * would leave no time for anything but timer interrupts.
 */
const SHORTEST_PERIOD = 10_000;

const NEVER = Number.POSITIVE_INFINITY;

/** Figure 11-10: bits 3, 1 and 0 select 2, 4, ... 128, and then 1. */
export function divisorOf(configuration: number): number {
  return 1 << (((configuration & 3) + ((configuration & 8) >>> 1) + 1) & 7);
}

export interface LapicTimerOptions {
  readonly name: string;
  readonly timers: TimerQueue;
  /** Input frequency in Hz: the core crystal clock, as CPUID 15H reports it. */
  readonly frequency: number;
  /** The virtual time at which the guest's TSC reaches a value; may be past, or Infinity if it never will. */
  readonly tscToNs: (tsc: bigint) => number;
  /** The count reached zero, or the TSC its deadline. */
  readonly expired: () => void;
}

export const LAPIC_TIMER_SCHEMA: Schema = {
  kind: "lapic-timer",
  version: 1,
  fields: { initialCount: "u32", divideConfiguration: "u32", expiry: "time", tscDeadline: "u64" },
  derived: ["queue", "timer", "frequency", "lvt"],
};

export class LapicTimer implements Stateful {
  readonly schema = LAPIC_TIMER_SCHEMA;

  initialCount = 0;
  divideConfiguration = 0;
  private expiry = NEVER;
  private tscDeadline = 0n;

  /** A copy of the LVT timer register, which the local APIC keeps. */
  private lvt = LVT_MASKED;
  private readonly queue: TimerQueue;
  private readonly timer: Timer;
  private readonly frequency: number;
  private readonly tscToNs: (tsc: bigint) => number;
  private readonly expired: () => void;

  constructor(options: LapicTimerOptions) {
    this.queue = options.timers;
    this.frequency = options.frequency;
    this.tscToNs = options.tscToNs;
    this.expired = options.expired;
    this.timer = options.timers.create(options.name, () => this.expire());
  }

  /** Everything as after a reset (11.4.7.1); the LVT register is told separately. */
  reset(): void {
    this.initialCount = 0;
    this.divideConfiguration = 0;
    this.stop();
  }

  /** Ends the present run; the initial count stays. */
  stop(): void {
    this.expiry = NEVER;
    this.tscDeadline = 0n;
    this.timer.cancel();
  }

  /** Starts a periodic timer again that `stop` ended, from its initial count. */
  restartPeriodic(): void {
    if (this.mode === TimerMode.PERIODIC) this.start();
  }

  /**
   * Takes the new value of the LVT timer register. Entering or leaving TSC-deadline mode disarms the timer (11.5.4.1); between the
   * counting modes the count goes on, since start-up code commonly writes the initial count first and the mode afterwards.
   */
  setLvt(value: number): void {
    this.settle();
    const before = this.mode;
    const now = this.now();
    if (before === TimerMode.PERIODIC) this.rollForward(now, 0);
    this.lvt = value;
    const after = this.mode;
    if (before !== after && (before >= TimerMode.TSC_DEADLINE || after >= TimerMode.TSC_DEADLINE)) {
      this.initialCount = 0;
      this.stop();
    }
    this.schedule();
  }

  /** Starts a run, in the counting modes; zero stops. In TSC-deadline mode the write is ignored (11.5.4.1). */
  writeInitialCount(count: number): void {
    this.settle();
    if (this.mode >= TimerMode.TSC_DEADLINE) return;
    this.initialCount = count;
    this.start();
  }

  /** What is left of the present run: rounded up, so that zero means expired; always 0 in TSC-deadline mode. */
  currentCount(): number {
    if (this.expiry === NEVER || this.mode >= TimerMode.TSC_DEADLINE) return 0;
    let remaining = this.expiry - this.now();
    if (remaining <= 0) {
      if (this.mode !== TimerMode.PERIODIC) return 0;
      const period = this.period();
      remaining = period - (-remaining % period);
    }
    // The subtrahend absorbs the rounding of the division, so that whole counts stay whole.
    const count = Math.ceil((remaining * this.frequency) / (this.divisor * 1e9) - 1e-5);
    return Math.min(this.initialCount, Math.max(0, count));
  }

  /** Changes the rate at once: the counts that are left are kept, the time that they take changes. */
  writeDivideConfiguration(value: number): void {
    this.settle();
    const before = this.divisor;
    const now = this.now();
    if (this.mode === TimerMode.PERIODIC) this.rollForward(now, 0);
    this.divideConfiguration = value;
    if (this.expiry !== NEVER && this.mode < TimerMode.TSC_DEADLINE) {
      this.expiry = now + ((this.expiry - now) * this.divisor) / before;
      this.schedule();
    }
  }

  /** IA32_TSC_DEADLINE: zero unless armed in TSC-deadline mode. */
  readDeadline(): bigint {
    this.settle();
    return this.tscDeadline;
  }

  /** Arms, or disarms with zero; ignored in other modes. A deadline that has passed fires at once. */
  writeDeadline(tsc: bigint): void {
    this.settle();
    if (this.mode !== TimerMode.TSC_DEADLINE) return;
    this.tscDeadline = tsc;
    this.tscChanged();
  }

  /** The relation of the TSC to virtual time changed (the guest wrote IA32_TIME_STAMP_COUNTER or IA32_TSC_ADJUST). */
  tscChanged(): void {
    if (this.mode !== TimerMode.TSC_DEADLINE) return;
    this.expiry = this.tscDeadline === 0n ? NEVER : this.tscToNs(this.tscDeadline);
    if (this.expiry <= this.now()) {
      this.timer.cancel();
      this.expire();
    } else this.schedule();
  }

  /** Goes on after a restore, once the LVT register is known again. */
  resume(lvt: number): void {
    this.lvt = lvt;
    this.schedule();
  }

  private get mode(): number {
    return (this.lvt >>> 17) & 3;
  }

  private get divisor(): number {
    return divisorOf(this.divideConfiguration);
  }

  private now(): number {
    return this.queue.clock.now();
  }

  /** Nanoseconds of a whole run; not always an integer. */
  private period(): number {
    return (this.initialCount * this.divisor * 1e9) / this.frequency;
  }

  private start(): void {
    this.expiry = this.initialCount === 0 ? NEVER : this.now() + this.period();
    this.schedule();
  }

  /** Takes an expiry that is due but was not run yet, so that a register access sees it in the order of virtual time. */
  private settle(): void {
    if (this.timer.deadline > this.now()) return;
    this.timer.cancel();
    this.expire();
  }

  private schedule(): void {
    if (this.expiry === NEVER) {
      this.timer.cancel();
      return;
    }
    if (this.mode === TimerMode.PERIODIC) {
      if (this.lvt & LVT_MASKED) {
        this.timer.cancel();
        return;
      }
      this.rollForward(this.now(), 0);
    }
    this.timer.arm(this.expiry);
  }

  /**
   * Moves a periodic expiry that lies before `now + gap` on by whole periods, to the first that does not. One that is late by many
   * periods thus continues in phase, and the interrupts that nobody took in time are one.
   */
  private rollForward(now: number, gap: number): void {
    if (this.expiry === NEVER || this.expiry > now + gap) return;
    const period = this.period();
    this.expiry += period * (Math.floor((now + gap - this.expiry) / period) + 1);
    if (this.expiry <= now) this.expiry = now + period;
  }

  private expire(): void {
    if (this.mode === TimerMode.PERIODIC) {
      const now = this.now();
      this.rollForward(now, Math.max(0, SHORTEST_PERIOD - this.period()));
      this.timer.arm(this.expiry);
    } else this.stop();
    this.expired();
  }
}
