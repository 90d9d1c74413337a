// Virtual time: one injectable source of absolute nanoseconds, and the timers that stand on it.
// Every timing device (TSC, APIC timer, 8254, HPET, RTC, PM timer) is a pure function of `now()`; none counts by itself.

/** A source of absolute virtual time. */
export interface Clock {
  /** Nanoseconds of virtual time since the machine was created: a non-negative integer below 2^53, never decreasing. */
  now(): number;
}

/** A clock that a machine starts, stops, and sets when it restores a snapshot. */
export interface MachineClock extends Clock {
  start(): void;
  stop(): void;
  setTime(ns: number): void;
}

/** A clock that a test moves by hand. */
export class ManualClock implements Clock {
  private time = 0;

  now(): number {
    return this.time;
  }

  /** Moves time forward to `ns` (absolute); moving back is an error. */
  set(ns: number): void {
    if (ns < this.time) throw new RangeError(`virtual time cannot go back from ${this.time} to ${ns}`);
    this.time = ns;
  }

  advance(ns: number): void {
    this.set(this.time + ns);
  }
}

/**
 * Virtual time that follows a monotonic host time source, and stands still while stopped.
 * The host source is given in nanoseconds and may have any origin.
 */
export class HostClock implements MachineClock {
  private readonly hostNow: () => number;
  private base: number;
  private origin: number;
  private stopped: boolean;

  constructor(hostNow: () => number, startAt = 0) {
    this.hostNow = hostNow;
    this.base = startAt;
    this.origin = 0;
    this.stopped = true;
  }

  now(): number {
    if (this.stopped) return this.base;
    return Math.floor(this.base + this.hostNow() - this.origin);
  }

  start(): void {
    if (!this.stopped) return;
    this.origin = this.hostNow();
    this.stopped = false;
  }

  stop(): void {
    if (this.stopped) return;
    this.base = this.now();
    this.stopped = true;
  }

  /** At host time `origin` virtual time is `base`, as long as the clock runs. */
  get relation(): { readonly base: number; readonly origin: number } {
    return { base: this.base, origin: this.origin };
  }

  /** Runs as a clock with the same host source does on another thread. */
  follow(relation: { readonly base: number; readonly origin: number }): void {
    this.base = relation.base;
    this.origin = relation.origin;
    this.stopped = false;
  }

  /** Sets the time that a stopped clock goes on from (restore of a snapshot). */
  setTime(ns: number): void {
    if (!this.stopped) throw new Error("the clock must be stopped to be set");
    this.base = ns;
  }
}

/**
 * One timer of a device. The owner arms it with an absolute deadline; the deadline, not a remaining count, is the state.
 * It is created once by the device and lives as long as the device.
 */
export class Timer {
  /** Absolute virtual nanoseconds, or Infinity when not armed. */
  deadline = Number.POSITIVE_INFINITY;
  readonly name: string;
  readonly fire: (deadline: number) => void;
  private readonly queue: TimerQueue;

  constructor(queue: TimerQueue, name: string, fire: (deadline: number) => void) {
    this.queue = queue;
    this.name = name;
    this.fire = fire;
  }

  get armed(): boolean {
    return this.deadline !== Number.POSITIVE_INFINITY;
  }

  arm(deadline: number): void {
    this.deadline = deadline;
    this.queue.changed(this);
  }

  cancel(): void {
    if (!this.armed) return;
    this.deadline = Number.POSITIVE_INFINITY;
    this.queue.changed(this);
  }
}

/** All timers of a machine. Few (a dozen a machine, one a vCPU), so the next one is found by a scan, and only when something changed. */
export class TimerQueue {
  readonly clock: Clock;
  private readonly timers: Timer[] = [];
  private nextDeadline = Number.POSITIVE_INFINITY;
  private stale = false;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** `fire` receives the deadline that was armed, so that a periodic timer continues from it and not from the time it ran late. */
  create(name: string, fire: (deadline: number) => void): Timer {
    const timer = new Timer(this, name, fire);
    this.timers.push(timer);
    return timer;
  }

  changed(timer: Timer): void {
    if (timer.deadline <= this.nextDeadline) this.nextDeadline = timer.deadline;
    else this.stale = true;
  }

  /** The earliest armed deadline in absolute virtual nanoseconds, or Infinity. */
  next(): number {
    if (this.stale) {
      let next = Number.POSITIVE_INFINITY;
      for (const timer of this.timers) if (timer.deadline < next) next = timer.deadline;
      this.nextDeadline = next;
      this.stale = false;
    }
    return this.nextDeadline;
  }

  /** Fires, in order of deadline, each timer that is due at `now`. A timer that re-arms in the past fires again in the same call. */
  run(now: number): void {
    while (this.next() <= now) {
      let due: Timer | undefined;
      for (const timer of this.timers) if (due === undefined || timer.deadline < due.deadline) due = timer;
      if (due === undefined) return;
      const deadline = due.deadline;
      due.deadline = Number.POSITIVE_INFINITY;
      this.stale = true;
      due.fire(deadline);
    }
  }
}
