// What vCPUs of the litmus machine post to one another: a ring a vCPU, in memory that all share. The smallest thing that keeps the promises of
// EngineHost.protectPage and codeWritten; the machine's own is in src/vmm.

import { withLock } from "../../src/cpu/shared-lock.ts";

export const REQUEST = { PROTECT: 1, DROP: 2 } as const;

/** Words of a vCPU. */
const WORD = { RUNNING: 0, POSTED: 16, SERVED: 32, LOCK: 48, INTERRUPT: 64, DROP_ALL: 80, RING: 96 } as const;
const ENTRIES = 1024;
const STRIDE = WORD.RING + ENTRIES * 3;

export function controlBytes(cpus: number): number {
  return cpus * STRIDE * 4;
}

/** One vCPU's words. */
export class Mailbox {
  private readonly words: Int32Array;

  constructor(control: SharedArrayBuffer, cpu: number) {
    this.words = new Int32Array(control, cpu * STRIDE * 4, STRIDE);
  }

  /** Gives the ticket of what was posted, 0 where there is no room. */
  post(kind: number, at: number, length: number): number {
    const { words } = this;
    let ticket = 0;
    withLock(words, WORD.LOCK, () => {
      const next = words[WORD.POSTED] + 1;
      if (next - Atomics.load(words, WORD.SERVED) >= ENTRIES) return;
      ticket = next;
      words.set([kind, at, length], WORD.RING + (ticket % ENTRIES) * 3);
      Atomics.store(words, WORD.POSTED, ticket);
    });
    return ticket;
  }

  get waiting(): boolean {
    const { words } = this;
    return (
      Atomics.load(words, WORD.POSTED) !== Atomics.load(words, WORD.SERVED) || Atomics.load(words, WORD.DROP_ALL) !== 0
    );
  }

  /** Where there is no room for what must not wait: all code. */
  dropAll(): void {
    Atomics.store(this.words, WORD.DROP_ALL, 1);
  }

  takeDropAll(): boolean {
    return Atomics.exchange(this.words, WORD.DROP_ALL, 0) !== 0;
  }

  serve(handle: (kind: number, at: number, length: number) => void): void {
    const { words } = this;
    for (let next = words[WORD.SERVED] + 1; next <= Atomics.load(words, WORD.POSTED); next++) {
      const at = WORD.RING + (next % ENTRIES) * 3;
      handle(words[at], words[at + 1] >>> 0, words[at + 2]);
      Atomics.store(words, WORD.SERVED, next);
    }
  }

  /** Served, or sure to be before anything is executed. */
  isDone(ticket: number): boolean {
    return Atomics.load(this.words, WORD.SERVED) >= ticket || Atomics.load(this.words, WORD.RUNNING) === 0;
  }

  set running(value: boolean) {
    Atomics.store(this.words, WORD.RUNNING, value ? 1 : 0);
  }

  interrupt(): void {
    Atomics.store(this.words, WORD.INTERRUPT, 1);
  }

  get interrupted(): boolean {
    return Atomics.load(this.words, WORD.INTERRUPT) !== 0;
  }

  takeInterrupt(): void {
    Atomics.store(this.words, WORD.INTERRUPT, 0);
  }
}
