// How long a halted vCPU looks for something to do before its thread sleeps: waking a thread takes tens of microseconds, and guests whose CPUs
// hand work to one another halt for less than that. It looks out longer where halts turn out short, and not at all where they turn out long
// (Linux, Documentation/virt/kvm/halt-polling.rst), so that an idle guest costs nothing.

const FIRST_NS = 10_000;
const MOST_NS = 100_000;

export class HaltPoll {
  /** Nanoseconds to look out at the next halt. */
  lookout = 0;
  private readonly most: number;

  /** `most`: nanoseconds to look out at most; 0: never. */
  constructor(most = MOST_NS) {
    this.most = most;
  }

  /** A halt has lasted so long, looking out and asleep. */
  lasted(ns: number): void {
    if (ns > this.most) this.lookout = 0;
    else if (ns > this.lookout) this.lookout = Math.min(this.most, Math.max(FIRST_NS, this.lookout * 2));
  }
}
