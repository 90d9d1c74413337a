// Which accesses to devices a vCPU need not wait for, as data: a board says it of its own (`machine/wiring.ts`).

import type { AccessSize } from "../bus.ts";

/** What comes of a `later` write can wait for the next access, or a millisecond; this says of which values it can, if not of all. */
type Wakes = "now" | "later" | ((value: number) => "now" | "later");

/** What a write selects: registers behind others. */
export interface Selection {
  /** Where they are reached: a port or a guest-physical address, as the register that is written is one. */
  readonly at: number;
  readonly bytes: number;
  /** The number of the register that an access of `size` bytes at `offset` reaches (`registerValue`), after a write of `value`; -1: to be asked for. */
  register(value: number, offset: number, size: AccessSize): number;
}

/** A range of guest-physical memory where writes are posted. */
export interface PostedRange {
  readonly base: number;
  readonly length: number;
  readonly wakes: Wakes;
  /** Of a write at `base`. */
  readonly selects?: Selection;
  /** A write at `base` of what the register there holds does nothing. */
  readonly latch?: true;
}

/** A port where writes of one size are posted. */
export interface PostedPort {
  readonly port: number;
  readonly size: AccessSize;
  readonly wakes: Wakes;
  /** What a read of a byte gives right after such a write, as long as the device says that its status is as usual (`setUsual`); while it is not,
   *  something may come of the write. */
  readonly status?: { readonly port: number; readonly value: number; readonly flag: number };
  readonly selects?: Selection;
  /** It may change the meaning or the value of ports that are known, or the status above. */
  readonly changes?: true;
}

/** A port whose value is known without asking while the device says so (`setKnown`). */
export interface KnownPort {
  readonly port: number;
  readonly size: 1 | 2;
  readonly index: number;
  /** Writes to it are posted, and take these bits; absent: no write that is posted changes it. */
  readonly posted?: number;
  /** A write of what it holds does nothing. */
  readonly latch?: true;
}

/** Registers of banks that are reached at guest-physical addresses of their own. */
export interface RegisterWindow {
  readonly at: number;
  readonly bytes: number;
  /** The number of the first (`registerValue`). */
  readonly register: number;
}

/** What a vCPU's accesses need not wait for. */
export interface PostedAccesses {
  readonly ranges: readonly PostedRange[];
  readonly ports: readonly PostedPort[];
  readonly known: readonly KnownPort[];
  readonly windows: readonly RegisterWindow[];
}
