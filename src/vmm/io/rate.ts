// A fixed frequency as an exact relation between virtual nanoseconds and counted clock pulses.
// Positions are computed from absolute time, so that no rounding accumulates, however long the machine runs.

const NS_PER_SECOND = 1_000_000_000;

export class Rate {
  readonly hz: number;

  /** `hz` is an integer; every intermediate product stays below 2^53, so that plain numbers are exact. */
  constructor(hz: number) {
    if (!Number.isInteger(hz) || hz <= 0 || hz * NS_PER_SECOND > Number.MAX_SAFE_INTEGER) {
      throw new RangeError(`a rate of ${hz} Hz cannot be converted exactly`);
    }
    this.hz = hz;
  }

  /** Pulses that have passed at `ns`, counted from virtual time 0: floor(ns * hz / 10^9). */
  ticksAt(ns: number): number {
    const rest = ns % NS_PER_SECOND;
    const scaled = rest * this.hz;
    return ((ns - rest) / NS_PER_SECOND) * this.hz + (scaled - (scaled % NS_PER_SECOND)) / NS_PER_SECOND;
  }

  /** The first nanosecond at which `ticks` pulses have passed, so that `ticksAt(timeOf(t))` is `t`. */
  timeOf(ticks: number): number {
    const rest = ticks % this.hz;
    const scaled = rest * NS_PER_SECOND;
    const low = scaled % this.hz;
    return ((ticks - rest) / this.hz) * NS_PER_SECOND + (scaled - low) / this.hz + (low === 0 ? 0 : 1);
  }
}
