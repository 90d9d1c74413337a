// Check mode: every execution of a region is taken back and done again by the interpreter, up to the record where the region left, and both
// must leave the same registers, flags and memory (docs/engine.md, "Checking regions"). Whoever made the regions puts them behind `guard`.

import {
  CR2,
  FCF,
  FRES,
  FX,
  GPR_COUNT,
  PENDING_ERROR,
  PENDING_VECTOR,
  RFLAGS,
  RIP,
  RIP_BASE,
  STATE_FIELDS,
  VECTOR,
  VECTOR_BASE,
  VECTOR_STRIDE,
  X87_BASE,
} from "../../isa/state.ts";
import { ModuleBuilder } from "../../wasm/module.ts";
import { PSEUDO } from "../decoder.ts";
import { flagImage } from "../flag-image.ts";
import { ARENA, ARENA_SIZE, BLOCK, JOURNAL, JOURNAL_END, LIMIT_NOW, RECORD, VAR } from "../layout.ts";
import { STATUS } from "../status.ts";
import { CheckHost } from "./check-host.ts";
import { Journal } from "./check-journal.ts";
import { HANDLER_TYPE } from "./region-jump.ts";
import { SUPPORT } from "./support.ts";

export interface CheckCounts {
  /** Executions of regions that were compared. */
  regionChecks: number;
  /** Those that were not: they changed code, or asked the host what cannot be asked again. */
  regionChecksSkipped: number;
}

/** A region and the interpreter disagree. */
export class RegionDifference extends Error {}

interface Parts {
  readonly exports: WebAssembly.Exports;
  readonly cpu: WebAssembly.Memory;
  readonly ram: WebAssembly.Memory;
  readonly ramBytes: number;
}

const REGISTERS_END = X87_BASE + 128;
const WORDS = REGISTERS_END / 8;
/** 8-byte words that are compared in another way: RIP, the flags. */
const APART = new Set([RIP, RIP_BASE, FRES, FX, FCF, RFLAGS].map(({ offset }) => offset >> 3));
/** Variables that are put back with the registers. Those of the TLB and of caches are not, and some follow from others (`updateMode`). */
const DERIVED = [
  VAR.BUDGET,
  VAR.LIMIT,
  VAR.PAUSES,
  VAR.EXIT_REASON,
  VAR.SPACE,
  VAR.EVENT_PENDING,
  VAR.NOT_CANONICAL,
  VAR.IP,
] as const;
/** What a region may leave of a page fault that it has met, where the interpreter is to raise it again (support.ts). */
const OF_FAULTS = new Set([CR2, PENDING_ERROR]);
/** Room for blocks that the interpreter may decode while it repeats a region. */
const ARENA_RESERVE = 0x400000;

/** A region has gone on in another one, which stands at `next`. */
const CHAIN = 100;
const STATUS_NAMES = new Map<number, string>([
  ...Object.entries(STATUS).map(([name, status]) => [status, name] as const),
  [CHAIN, "GO_ON"],
]);
/** Ways out with the instruction at the record done, in part or as a whole. */
const AFTER: readonly number[] = [STATUS.TAKEN, STATUS.NOT_TAKEN, STATUS.LOOKUP, STATUS.EXIT, STATUS.FAULT];

/** Registers, and the variables that go with them. */
class Snapshot {
  readonly words = new BigUint64Array(WORDS);
  readonly view = new DataView(this.words.buffer);
  private readonly derived = new Uint32Array(DERIVED.length);

  take(memory: Uint32Array, words: BigUint64Array): void {
    this.words.set(words);
    DERIVED.forEach((at, n) => {
      this.derived[n] = memory[at >> 2];
    });
  }

  put(memory: Uint32Array, words: BigUint64Array): void {
    words.set(this.words);
    DERIVED.forEach((at, n) => {
      memory[at >> 2] = this.derived[n];
    });
  }

  get(variable: (typeof DERIVED)[number]): number {
    return this.derived[DERIVED.indexOf(variable)];
  }
}

export class RegionChecker {
  readonly counts: CheckCounts = { regionChecks: 0, regionChecksSkipped: 0 };
  readonly host = new CheckHost();
  private readonly every: number;
  private entered = 0;
  private readonly raw = new Map<number, (record: number) => number>();
  private readonly before = new Snapshot();
  private readonly after = new Snapshot();
  private phase: "out" | "region" | "interpreter" = "out";
  private next = 0;
  private parts!: Parts;
  private view!: DataView;
  private vars!: Uint32Array;
  private words!: BigUint64Array;
  private journal!: Journal;
  private table!: WebAssembly.Table;
  private stub!: WebAssembly.ExportValue;
  private stopSlot = 0;
  // Where the interpreter is to stop.
  private stopAt = 0;
  private stopBudget = 0;
  private stopAfter = false;
  private stopOriginal = 0;
  private stopped = false;
  private stopStatus = 0;

  /** One of `every` executions is checked. */
  constructor(every = 1) {
    this.every = every;
  }

  /** To be called before there are regions. */
  attach(parts: Parts): void {
    this.parts = parts;
    this.view = new DataView(parts.cpu.buffer);
    this.vars = new Uint32Array(parts.cpu.buffer, 0, 0x6000 / 4);
    this.words = new BigUint64Array(parts.cpu.buffer, 0, WORDS);
    this.journal = new Journal(this.view, parts.ram, parts.ramBytes);
    this.table = parts.exports[SUPPORT.TABLE] as WebAssembly.Table;
    const m = new ModuleBuilder();
    const entry = m.importFunc("check", "enter", HANDLER_TYPE.params, HANDLER_TYPE.results);
    const stop = m.importFunc("check", "stop", HANDLER_TYPE.params, HANDLER_TYPE.results);
    for (const func of [entry, stop]) {
      const stub = m.func(func.name, HANDLER_TYPE.params, HANDLER_TYPE.results, (c) =>
        c.results([c.call(func, c.params[0])]),
      );
      m.exportFunc(func.name, stub);
    }
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(m.toBytes()), {
      check: { enter: (record: number) => this.enter(record), stop: (record: number) => this.reach(record) },
    });
    this.stub = exports.enter;
    this.stopSlot = this.table.length;
    this.table.grow(1, exports.stop);
  }

  /** Puts the check before the regions at some table slots. */
  guard(first: number, count: number): void {
    for (let slot = first; slot < first + count; slot++) {
      this.raw.set(slot, this.table.get(slot) as (record: number) => number);
      this.table.set(slot, this.stub);
    }
  }

  /** In the place of a region. */
  private enter(record: number): number {
    if (this.phase === "interpreter") return this.reach(record);
    if (this.phase === "region") {
      // A tail call out of a region that is being checked.
      this.next = record;
      return CHAIN;
    }
    for (let at = record; ; at = this.next) {
      const status = this.run(at);
      if (status !== CHAIN) return status;
    }
  }

  private region(record: number): number {
    const slot = this.view.getUint32(record - BLOCK.SIZE + BLOCK.REGION, true);
    const region = this.raw.get(slot);
    if (region === undefined) throw new Error(`there is no region at table slot ${slot}`);
    return region(record);
  }

  private run(record: number): number {
    const { vars, words, journal, before, after } = this;
    const crowded = vars[VAR.ARENA_NEXT >> 2] > ARENA + ARENA_SIZE - ARENA_RESERVE;
    const checked = ++this.entered % this.every === 0 && !crowded;
    before.take(vars, words);
    const invalidated = vars[VAR.COUNT_INVALIDATED >> 2];
    const flushed = vars[VAR.COUNT_ARENA_FLUSHES >> 2];
    if (checked) {
      this.host.note();
      vars[VAR.JOURNAL_NEXT >> 2] = JOURNAL;
    }
    this.phase = "region";
    let status: number;
    try {
      status = this.region(record);
    } finally {
      this.phase = "out";
    }
    if (!checked) {
      if (crowded) this.counts.regionChecksSkipped++;
      return status;
    }
    const end = vars[VAR.JOURNAL_NEXT >> 2];
    vars[VAR.JOURNAL_NEXT >> 2] = 0;
    this.host.direct();
    const at = status === CHAIN ? this.next : vars[VAR.IP >> 2];
    // Through the jump cache it may have come to a block that is dead, where the interpreter finds another.
    const alive = this.view.getUint16(at + RECORD.HANDLER, true) !== PSEUDO.STALE;
    const repeatable =
      alive &&
      !this.host.unrepeatable &&
      end !== JOURNAL_END &&
      vars[VAR.COUNT_INVALIDATED >> 2] === invalidated &&
      vars[VAR.COUNT_ARENA_FLUSHES >> 2] === flushed;
    if (!repeatable) {
      this.counts.regionChecksSkipped++;
      this.host.takeEffect();
      return status;
    }
    after.take(vars, words);
    journal.undo(end);
    this.put(before);
    this.repeat(record, status, at);
    this.host.takeEffect();
    this.counts.regionChecks++;
    return status;
  }

  /** The interpreter from the record on where the region was entered, to where it left; compares; leaves what the region left. */
  private repeat(record: number, status: number, at: number): void {
    const { view, vars, before, after, journal } = this;
    const firstOf = status === CHAIN || status === STATUS.ENTER;
    this.stopAt = at;
    this.stopAfter = AFTER.includes(status);
    this.stopBudget = after.get(VAR.BUDGET) | 0;
    if (status === STATUS.ENTER) this.stopBudget -= view.getUint32(at - BLOCK.SIZE + BLOCK.COUNT, true);
    this.stopped = false;
    this.stopOriginal = view.getUint16(at + RECORD.HANDLER, true);
    if (this.stopOriginal !== PSEUDO.ENTER_REGION) view.setUint16(at + RECORD.HANDLER, this.stopSlot, true);
    const place = (from: number): bigint => BigInt(view.getUint16(from + RECORD.PLACE, true) & 0xfff);
    const rip = before.view.getBigUint64(RIP_BASE.offset, true) + place(record);
    view.setBigUint64(RIP.offset, rip, true);
    // The block has been charged where the region was entered, and is again where the interpreter comes in.
    view.setInt32(
      VAR.BUDGET,
      (before.get(VAR.BUDGET) | 0) + view.getUint32(record - BLOCK.SIZE + BLOCK.COUNT, true),
      true,
    );
    vars[VAR.LIMIT >> 2] = 0;
    vars[VAR.EVENT_PENDING >> 2] = 0;
    vars[VAR.JOURNAL_NEXT >> 2] = JOURNAL;
    this.host.replay();
    this.phase = "interpreter";
    try {
      (this.parts.exports.run as () => number)();
    } finally {
      this.phase = "out";
    }
    const end = vars[VAR.JOURNAL_NEXT >> 2];
    vars[VAR.JOURNAL_NEXT >> 2] = 0;
    const asked = this.host.direct();
    if (view.getUint16(at + RECORD.HANDLER, true) === this.stopSlot)
      view.setUint16(at + RECORD.HANDLER, this.stopOriginal, true);

    const lines: string[] = [];
    const expectedRip = after.view.getBigUint64(RIP_BASE.offset, true) + place(at);
    const ended = status === STATUS.ENTER && !this.stopped && view.getInt32(VAR.BUDGET, true) <= 0;
    if (!this.stopped && !(ended && view.getBigUint64(RIP.offset, true) === expectedRip))
      lines.push(`the interpreter did not come there: it is at ${hex(view.getBigUint64(RIP.offset, true))}`);
    else if (this.stopped && this.stopAfter && this.stopStatus !== status)
      lines.push(`interpreted, the last instruction ends with ${STATUS_NAMES.get(this.stopStatus)}`);
    if (asked !== undefined) lines.push(asked);
    this.compareRegisters(lines, this.stopped, status);
    lines.push(...journal.compare(end));
    if (lines.length > 0) {
      const instructions = (before.get(VAR.BUDGET) | 0) - (after.get(VAR.BUDGET) | 0);
      const slot = view.getUint32(record - BLOCK.SIZE + BLOCK.REGION, true);
      throw new RegionDifference(
        `region ${slot} entered at ${hex(rip)} left at ${hex(expectedRip)} by ${STATUS_NAMES.get(status)}, ` +
          `${instructions} instructions charged${firstOf ? " with the block there" : ""}: ${lines.join("; ")}`,
      );
    }
    const limit = vars[VAR.LIMIT >> 2];
    this.put(after);
    if (limit === LIMIT_NOW) vars[VAR.LIMIT >> 2] = limit;
  }

  private put(snapshot: Snapshot): void {
    snapshot.put(this.vars, this.words);
    (this.parts.exports.updateMode as () => void)();
  }

  /** Where the interpreter comes to a region's entry, or to the record where it is to stop. */
  private reach(record: number): number {
    const { view } = this;
    const original = view.getUint16(record + RECORD.HANDLER, true);
    const isEntry = original === PSEUDO.ENTER_REGION;
    const here = record === this.stopAt && view.getInt32(VAR.BUDGET, true) === this.stopBudget;
    if (!here && isEntry) {
      view.setUint32(VAR.IP, record, true);
      return STATUS.INTERPRET;
    }
    if (here) this.stopped = true;
    if (here && !this.stopAfter) return STATUS.EXIT;
    const handler = isEntry ? view.getUint16(record - BLOCK.SIZE + BLOCK.ORIGINAL, true) : this.stopOriginal;
    const status = this.handle(handler, record);
    if (!here) return status;
    this.stopStatus = status;
    return STATUS.EXIT;
  }

  /** Does an instruction by its handler's number. */
  private handle(handler: number, record: number): number {
    const { view } = this;
    switch (handler) {
      case PSEUDO.FALL_THROUGH:
        return STATUS.NOT_TAKEN;
      case PSEUDO.UNDEFINED:
      case PSEUDO.TOO_LONG:
        view.setUint32(PENDING_VECTOR.offset, handler === PSEUDO.UNDEFINED ? VECTOR.UD : VECTOR.GP, true);
        view.setInt32(PENDING_ERROR.offset, handler === PSEUDO.UNDEFINED ? -1 : 0, true);
        return STATUS.FAULT;
      default:
        return (this.table.get(handler) as (record: number) => number)(record);
    }
  }

  private compareRegisters(lines: string[], inBlock: boolean, status: number): void {
    const { view, words, after } = this;
    let same = true;
    for (let n = 0; n < WORDS; n++) if (words[n] !== after.words[n] && !APART.has(n)) same = false;
    const note = (name: string, is: bigint | number, interpreted: bigint | number): void => {
      if (is !== interpreted) lines.push(`${name} is ${hex(is)}, interpreted ${hex(interpreted)}`);
    };
    const word = (name: string, at: number): void =>
      note(name, after.view.getBigUint64(at, true), view.getBigUint64(at, true));
    note("rflags", flagImage(after.view), flagImage(view));
    if (inBlock) word("the page of RIP", RIP_BASE.offset);
    if (status === STATUS.LOOKUP || status === STATUS.EXIT) word("rip", RIP.offset);
    if (same) return;
    for (let n = 0; n < GPR_COUNT; n++) word(`r${n}`, n * 8);
    for (const field of STATE_FIELDS) {
      const { name, type, offset } = field;
      if (APART.has(offset >> 3) || (status === STATUS.INTERPRET && OF_FAULTS.has(field))) continue;
      if (type === "i64") word(name, offset);
      else note(name, after.view.getUint32(offset, true), view.getUint32(offset, true));
    }
    for (let at = VECTOR_BASE; at < VECTOR_BASE + 16 * VECTOR_STRIDE; at += 8)
      word(`xmm${Math.floor((at - VECTOR_BASE) / VECTOR_STRIDE)} at ${(at - VECTOR_BASE) % VECTOR_STRIDE}`, at);
    for (let at = X87_BASE; at < REGISTERS_END; at += 8) word(`x87.${(at - X87_BASE) >> 4} at ${at & 8}`, at);
  }
}

function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}
