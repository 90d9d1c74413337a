// What the tests of time and interrupt devices stand on: a clock moved by hand, recording pins, a small random source.

import type { AnomalyLog, InterruptPin } from "../../../src/vmm/bus.ts";
import { ManualClock, TimerQueue } from "../../../src/vmm/clock.ts";

export class RecordingPin implements InterruptPin {
  level = false;
  /** Virtual times of the rising edges. */
  readonly rises: number[] = [];
  private readonly clock: ManualClock;

  constructor(clock: ManualClock) {
    this.clock = clock;
  }

  set(asserted: boolean): void {
    if (asserted && !this.level) this.rises.push(this.clock.now());
    this.level = asserted;
  }
}

export class Bench {
  readonly clock = new ManualClock();
  readonly timers = new TimerQueue(this.clock);
  readonly counts = new Map<string, number>();
  readonly anomalies: AnomalyLog = {
    anomaly: (source, what) => {
      const key = `${source}: ${what}`;
      this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    },
  };

  pin(): RecordingPin {
    return new RecordingPin(this.clock);
  }

  /** Moves time on, running each timer at its deadline. */
  advance(ns: number): void {
    const end = this.clock.now() + ns;
    for (let next = this.timers.next(); next <= end; next = this.timers.next()) {
      this.clock.set(Math.max(next, this.clock.now()));
      this.timers.run(this.clock.now());
    }
    this.clock.set(end);
  }

  /** Moves time on in one step, as a host that was busy elsewhere: timers run late. */
  stall(ns: number): void {
    this.clock.advance(ns);
    this.timers.run(this.clock.now());
  }
}

/** A generator of 32-bit numbers that a seed determines (xorshift32). */
export function random(seed: number): (limit: number) => number {
  let state = seed | 0 || 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}
