// Time of the world that the machine's clock has missed: while it was paused, and while the host slept, when monotonic clocks of hosts stand
// still (clock_gettime(2): CLOCK_MONOTONIC does not count suspension).

import type { Host } from "../host/host.ts";

const NS_PER_MS = 1e6;
/** How often, and from how much on, sleep of the host is looked for: clocks that are set by NTP move by less. */
export const LOOK_EVERY_NS = 1e9;
const LEAST_SLEEP_NS = 2e9;

export class LostTime {
  private readonly host: Pick<Host, "now" | "wallClock">;
  private now = 0;
  private wallClock = 0;

  constructor(host: Pick<Host, "now" | "wallClock">) {
    this.host = host;
    this.mark();
  }

  /** What was lost until here is of no interest. */
  mark(): void {
    this.now = this.host.now();
    this.wallClock = this.host.wallClock();
  }

  /** Whether it is time to ask whether the host slept. */
  get due(): boolean {
    return this.host.now() - this.now >= LOOK_EVERY_NS;
  }

  /** Nanoseconds since `mark` by the wall clock, of a clock that stood still. */
  paused(): number {
    return Math.max(0, this.host.wallClock() - this.wallClock) * NS_PER_MS;
  }

  /** Nanoseconds that the host slept since `mark`, of a clock that ran; 0 if it did not. Marks. */
  slept(): number {
    const { now, wallClock } = this;
    this.mark();
    const lost = (this.wallClock - wallClock) * NS_PER_MS - (this.now - now);
    return lost >= LEAST_SLEEP_NS ? Math.floor(lost) : 0;
  }
}
