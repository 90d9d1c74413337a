// Ranges of guest memory that other threads tell a vCPU of: pages that hold translated code from now on, and code that was changed. Any thread
// adds, the vCPU takes. A lock guards the few words; where a queue is full it says so, and the vCPU treats all of memory as named.

import { RANGES_MAX, VCPU } from "./control-area.ts";
import { spinPause } from "./spin.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const LOCK = 0;
const ADDED = 1;
const TAKEN = 2;
const OVERFLOW = 3;

export class RangeQueue {
  private readonly words: Int32Array;
  private readonly at: number;
  private readonly ranges: number;

  constructor(link: VcpuLink, which: "protect" | "written") {
    this.words = link.words;
    this.at = link.at + (which === "protect" ? VCPU.PROTECT : VCPU.WRITTEN);
    this.ranges = link.at + (which === "protect" ? VCPU.PROTECT_RANGES : VCPU.WRITTEN_RANGES);
  }

  /** Adds a range; the number by which `taken` tells that it has been seen. */
  add(start: number, length: number): number {
    const { words, at } = this;
    this.lock();
    const added = words[at + ADDED];
    if (((added - Atomics.load(words, at + TAKEN)) | 0) >= RANGES_MAX) words[at + OVERFLOW] = 1;
    else {
      const entry = this.ranges + (added & (RANGES_MAX - 1)) * 2;
      words[entry] = start;
      words[entry + 1] = length;
    }
    // One that did not fit is counted with the latest that did.
    const number = words[at + OVERFLOW] === 1 ? added : (added + 1) | 0;
    Atomics.store(words, at + ADDED, number);
    this.unlock();
    return number;
  }

  /** Whether the vCPU has taken the range that `add` gave this number. */
  taken(number: number): boolean {
    const { words, at } = this;
    return ((Atomics.load(words, at + TAKEN) - number) | 0) >= 0 && Atomics.load(words, at + OVERFLOW) === 0;
  }

  /** Index of the word that is notified when ranges have been taken. */
  get takenWord(): number {
    return this.at + TAKEN;
  }

  get pending(): boolean {
    const { words, at } = this;
    return (
      Atomics.load(words, at + ADDED) !== Atomics.load(words, at + TAKEN) || Atomics.load(words, at + OVERFLOW) !== 0
    );
  }

  /** Hands on each range, or says that all of memory is meant. Only then does `taken` tell of them. */
  take(each: (start: number, length: number) => void, all: () => void): void {
    const { words, at } = this;
    if (!this.pending) return;
    this.lock();
    const added = words[at + ADDED];
    const overflow = words[at + OVERFLOW] !== 0;
    words[at + OVERFLOW] = 0;
    this.unlock();
    // What has not been taken is not overwritten; and a queue that was full stays full until then.
    if (overflow) all();
    else
      for (let n = words[at + TAKEN]; n !== added; n = (n + 1) | 0) {
        const entry = this.ranges + (n & (RANGES_MAX - 1)) * 2;
        each(words[entry] >>> 0, words[entry + 1] >>> 0);
      }
    Atomics.store(words, at + TAKEN, added);
    Atomics.notify(words, at + TAKEN);
  }

  private lock(): void {
    const { words, at } = this;
    for (let n = 0; Atomics.compareExchange(words, at + LOCK, 0, 1) !== 0; n++)
      if (n < 1000) spinPause();
      else Atomics.wait(words, at + LOCK, 1, 0.05);
  }

  private unlock(): void {
    Atomics.store(this.words, this.at + LOCK, 0);
  }
}
