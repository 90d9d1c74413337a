// Random programs through the translator and the interpreter, many at a time: a batch of programs becomes a few modules, is run in slices
// with interrupts between them, and whatever a program can change is compared after each slice.

import { BLOCK, HOT_LIST, VAR } from "../../src/cpu/layout.ts";
import { BlockReader } from "../../src/cpu/translator/region.ts";
import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator, type TranslatorHost } from "../../src/cpu/translator/translator.ts";
import { EXIT } from "../../src/isa/exit.ts";
import {
  ACTIVITY,
  FCW,
  FSW,
  FTW,
  GPR_COUNT,
  MXCSR,
  RFLAGS,
  RIP,
  STATE_FIELDS,
  VECTOR_BASE,
  VECTOR_STRIDE,
  X87_BASE,
} from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { INJECT } from "../../src/vmm/engine.ts";
import { BASE, INDEX, type Program, randomProgram, Source } from "./programs.ts";
import { AT, everything, onFault, RAM_BYTES, Rig } from "./rig.ts";

/** Programs of a batch, each in 64 KiB of its own; few enough that the engine can note all their blocks as hot. */
const BATCH = 16;
const FIRST = 0x400000;
const ROOM = 0x10000;
const BLOCKS_MAX = 40;
const REPEATED = 8;
/** Runs of each program: the first is where it becomes hot. */
const PASSES = 4;
/** Entries at random blocks of each run, and instructions after which one is left. */
const ENTRIES = 4;
const LIMIT = 500;

const TABLES_END = AT.HANDLERS + 0x3000;
const DATA_BYTES = 0x4000;
/** A page table for the data: neighbouring pages change places, so that what crosses a page's end goes on elsewhere. */
const PAGE_TABLE = 0x7000;
/** A page table for the first 2 MiB that leaves the paging structures out: what a program that changes them finds depends on what the TLB holds. */
const LOW_TABLE = AT.HANDLERS + 0x2000;
const PAGING_STRUCTURES = [AT.PML4, AT.PDPT, AT.PD, PAGE_TABLE, LOW_TABLE];
const INTERRUPT = 0x30;
const INTERRUPT_HANDLER = AT.HANDLERS + 0x1000;
/** push rax; push rcx; mov ecx, 3; L: add [DATA + 0xff0], rcx; loop L; pop rcx; pop rax; iretq */
const HANDLER_CODE = [
  0x50, 0x51, 0xb9, 3, 0, 0, 0, 0x48, 0x01, 0x0c, 0x25, 0xf0, 0x0f, 0x20, 0x00, 0xe2, 0xf6, 0x59, 0x58, 0x48, 0xcf,
];
const STATE_END = X87_BASE + 128;

/** Translates when it is told to, and from some blocks only: the first of each program, and now and then others. */
class BatchTranslator extends Translator {
  private readonly memory: DataView;
  private readonly choice = new Source(1);
  private readonly repeated: number;

  constructor(host: TranslatorHost, repeated: number) {
    super(host, { compiler: compileOnSameThread({ instructions: INSTRUCTIONS, onFault }), threshold: 1 });
    this.memory = new DataView(host.cpu.buffer);
    this.repeated = repeated;
  }

  override work(): void {
    // Not at the end of each run.
  }

  isCovered(record: number): boolean {
    // biome-ignore lint/complexity/useLiteralKeys: private
    return this["reader"].covered.has(record);
  }

  /** First from the entries, then from what these have left out, and from some that are in regions already. */
  translateSome(isEntry: (host: number) => boolean): void {
    const { memory } = this;
    const hot = Array.from({ length: memory.getUint32(VAR.HOT_COUNT, true) }, (_, n) => ({
      record: memory.getUint32(HOT_LIST + n * 16, true),
      page: memory.getBigUint64(HOT_LIST + n * 16 + 8, true),
    }));
    const translate = (blocks: typeof hot): void => {
      blocks.forEach(({ record, page }, n) => {
        memory.setUint32(HOT_LIST + n * 16, record, true);
        memory.setBigUint64(HOT_LIST + n * 16 + 8, page, true);
      });
      memory.setUint32(VAR.HOT_COUNT, blocks.length, true);
      super.work();
    };
    const hostOf = (record: number): number => memory.getUint32(record - BLOCK.SIZE + BLOCK.HOST, true);
    translate(hot.filter(({ record }) => isEntry(hostOf(record))));
    // One a program at a time, because each may take in others.
    let left = hot.filter(({ record }) => !this.isCovered(record));
    while (left.length > 0) {
      const places = new Set<number>();
      const taken = left.filter(({ record }) => {
        const place = Math.floor(hostOf(record) / ROOM);
        return !places.has(place) && places.add(place);
      });
      translate(taken);
      left = left.filter((one) => !taken.includes(one) && !this.isCovered(one.record));
    }
    translate(hot.filter(() => this.choice.chance(this.repeated)));
    // Hot again where they run interpreted after all.
    for (const { record } of hot) memory.setUint32(record - BLOCK.SIZE + BLOCK.HEAT, 0, true);
  }
}

interface Case {
  readonly seed: number;
  readonly at: number;
  readonly program: Program;
}

export function makeCase(seed: number, place: number): Case {
  const s = new Source(seed);
  const program = randomProgram(s, 1 + s.below(BLOCKS_MAX));
  return { seed, at: FIRST + place * ROOM + s.below(4096), program };
}

/** Random bytes to take data from. */
const POOL = ((): Uint8Array => {
  const s = new Source(4711);
  const words = new Uint32Array(1 << 16);
  for (let n = 0; n < words.length; n++) {
    const word = s.word();
    const kind = s.below(8);
    words[n] = kind < 4 ? word : kind === 4 ? word & 0xff : kind === 5 ? -(word & 0xff) : kind === 6 ? 0 : 0xffffffff;
  }
  return new Uint8Array(words.buffer);
})();

/** Bits of numbers that are dealt with in ways of their own: zeros, denormal numbers, the least normal and largest ones, infinities, NaNs. */
const SPECIAL_DOUBLES = [
  0n,
  1n,
  0x1f80n,
  0xfffffffffffffn,
  0x10000000000000n,
  0x7fefffffffffffffn,
  0x7ff0000000000000n,
  0x7ff8000000000000n,
  0x7ff0000000000001n,
];
const SPECIAL_SINGLES = [0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000, 0x7f800001];

/** Fills memory with numbers of a size, few of them special, some large or small. */
function fillNumbers(s: Source, view: DataView, bytes: number, size: 4 | 8): void {
  for (let at = 0; at < bytes; at += size) {
    const scale = s.chance(10) ? 2 ** ((s.below(3) - 1) * (size === 8 ? 600 : 80)) : 1;
    const value = ((s.below(2000) - 1000) / 8) * scale;
    const special = s.chance(6);
    const sign = s.below(2);
    if (size === 8) {
      if (special) view.setBigUint64(at, s.pick(SPECIAL_DOUBLES) | (BigInt(sign) << 63n), true);
      else view.setFloat64(at, value, true);
    } else if (special) view.setUint32(at, (s.pick(SPECIAL_SINGLES) | (sign << 31)) >>> 0, true);
    else view.setFloat32(at, value, true);
  }
}

class Difference extends Error {}

/** One vCPU and quick access to what is compared. */
class Side {
  readonly rig: Rig;
  readonly state: Buffer;
  readonly view: DataView;
  readonly ram: Buffer;

  constructor(translator: ((host: TranslatorHost) => Translator) | undefined) {
    this.rig = new Rig(everything(), {}, translator);
    const { rig } = this;
    rig.bytes.set(HANDLER_CODE, INTERRUPT_HANDLER);
    rig.view.setUint16(AT.IDT + INTERRUPT * 16, INTERRUPT_HANDLER, true);
    const map = (table: number, from: number, entry: (page: number) => number): void => {
      for (let n = 0; n < 512; n++) rig.view.setBigUint64(table + n * 8, BigInt(entry(n)), true);
      rig.view.setBigUint64(AT.PD + (from >> 21) * 8, BigInt(table | 7), true);
    };
    map(PAGE_TABLE, AT.DATA, (page) => (AT.DATA + ((page ^ 1) << 12)) | 7);
    map(LOW_TABLE, 0, (page) => (PAGING_STRUCTURES.includes(page << 12) ? 0 : (page << 12) | 7));
    rig.longMode();
    this.state = Buffer.from(rig.engine.memory.buffer);
    this.view = new DataView(rig.engine.memory.buffer);
    this.ram = Buffer.from(rig.ram.buffer, 0, RAM_BYTES);
  }

  /** Writes only what is different, so that code which is as it was stays. */
  restore(at: number, was: Uint8Array): void {
    if (this.ram.compare(was, 0, was.length, at, at + was.length) === 0) return;
    this.ram.set(was, at);
    this.rig.engine.memoryWritten(at, was.length);
  }
}

export class RandomBlocks {
  /** Blocks that both have run, by where they begin; those of them that are in a region. */
  executed = 0;
  blocks = 0;
  programs = 0;
  private readonly interpreter: Side;
  private readonly translator: Side;
  private batch!: BatchTranslator;
  private readonly reader: BlockReader;
  private readonly pristine: Buffer;
  private readonly tables: Buffer;

  /** `repeated`: blocks in regions that get one of their own all the same, in percent. */
  constructor(repeated = REPEATED) {
    this.interpreter = new Side(undefined);
    this.translator = new Side((host) => {
      this.batch = new BatchTranslator(host, repeated);
      return this.batch;
    });
    this.reader = new BlockReader(this.translator.view, new Uint8Array(0), this.translator.rig.bytes);
    this.pristine = Buffer.from(this.interpreter.state.subarray(0, STATE_END));
    this.tables = Buffer.from(this.interpreter.ram.subarray(0, TABLES_END));
  }

  get regions(): number {
    return Number(this.translator.rig.engine.statistics().regions);
  }

  private get sides(): readonly Side[] {
    return [this.interpreter, this.translator];
  }

  /** Runs `count` programs from a seed on; what differs is an error with a small program that shows it. */
  run(seed: number, count: number): void {
    for (let done = 0; done < count; done += BATCH) {
      const cases = Array.from({ length: Math.min(BATCH, count - done) }, (_, n) => makeCase(seed + done + n, n));
      try {
        this.runCases(cases);
      } catch (error) {
        if (!(error instanceof Difference)) throw error;
        throw new Error(reduce(cases, error.message));
      }
    }
  }

  runCases(cases: readonly Case[]): void {
    const code = cases.map(({ program }) => Uint8Array.from(program.bytes));
    const entries = new Set(cases.map(({ at }) => at));
    for (const side of this.sides) {
      cases.forEach(({ at }, n) => {
        side.restore(at, code[n]);
      });
    }
    for (let pass = 0; pass < PASSES; pass++) {
      cases.forEach((one, n) => {
        this.runCase(one, code[n], pass);
      });
      const a = this.interpreter.ram;
      if (a.compare(this.translator.ram) !== 0) {
        const at = a.findIndex((byte, n) => byte !== this.translator.ram[n]);
        throw new Difference(`pass ${pass}: memory at 0x${at.toString(16)} differs`);
      }
      if (pass === PASSES - 1) break;
      this.batch.translateSome((at) => entries.has(at));
    }
    for (const { at, program } of cases) {
      for (let offset = 0; offset < program.bytes.length; offset++) {
        const record = this.reader.find(at + offset);
        if (record === 0) continue;
        this.executed++;
        if (this.batch.isCovered(record)) this.blocks++;
      }
    }
    this.programs += cases.length;
  }

  private runCase({ seed, at, program }: Case, code: Uint8Array, pass: number): void {
    const s = new Source(seed * 8 + pass + 1_000_000);
    const { interpreter, translator } = this;
    this.prepare(s);
    for (const side of this.sides) {
      side.restore(at, code);
      side.restore(0, this.tables);
      side.rig.engine.registersChanged();
    }
    const base = AT.DATA + (s.chance(50) ? 0x800 : 0x1000 - s.below(0x90));
    const what = (): string => `program ${seed} pass ${pass}`;
    // All blocks become known in the first pass.
    const entries = pass === 0 ? Math.max(ENTRIES, program.starts.length) : ENTRIES;
    for (let entry = 0; entry < entries; entry++) {
      const chosen = pass === 0 || entry === 0 ? program.starts[entry] : undefined;
      const start = at + (chosen ?? s.pick(program.starts));
      this.set((view) => {
        view.setBigUint64(RIP.offset, BigInt(start), true);
        view.setUint32(ACTIVITY.offset, 0, true);
        view.setBigUint64(BASE * 8, BigInt(base), true);
        view.setBigUint64(4 * 8, BigInt(AT.STACK_TOP - 0x800), true);
      });
      const before = interpreter.rig.engine.retired();
      let reason: number = EXIT.BUDGET;
      while (reason === EXIT.BUDGET && interpreter.rig.engine.retired() - before < LIMIT) {
        const budget = 1 + s.below(s.chance(50) ? 10 : 200);
        reason = interpreter.rig.engine.run(budget);
        const other = translator.rig.engine.run(budget);
        if (other !== reason) throw new Difference(`${what()}: ended by ${other}, not ${reason}`);
        this.compare(what);
        if (reason === EXIT.BUDGET && s.chance(15) && interpreter.rig.engine.canInject(INJECT.INTERRUPT)) {
          for (const { rig } of this.sides) rig.engine.inject(INJECT.INTERRUPT, INTERRUPT);
        }
      }
      if (reason !== EXIT.HLT && reason !== EXIT.BUDGET) break;
    }
  }

  private set(change: (view: DataView) => void): void {
    change(this.interpreter.view);
    change(this.translator.view);
  }

  /** Registers and data of a run, the same on both. */
  private prepare(s: Source): void {
    const { state, view } = this.interpreter;
    state.set(this.pristine);
    for (let n = 0; n < GPR_COUNT; n++) view.setBigUint64(n * 8, s.quad(), true);
    view.setBigUint64(INDEX * 8, BigInt(s.below(16)), true);
    // Pointers for string instructions, and a counter for loops.
    view.setBigUint64(6 * 8, BigInt(AT.DATA + 0x100), true);
    view.setBigUint64(7 * 8, BigInt(AT.DATA + 0x300), true);
    view.setBigUint64(15 * 8, BigInt(1 + s.below(30)), true);
    if (s.chance(70)) view.setBigUint64(8, BigInt(1 + s.below(20)), true);
    this.interpreter.rig.engine.setRflags(2 | (s.word() & 0x8d5) | (s.chance(60) ? 0x200 : 0));
    for (let n = 0; n < 16; n++) {
      const at = VECTOR_BASE + n * VECTOR_STRIDE;
      const from = s.below(POOL.length - 16);
      state.set(POOL.subarray(from, from + 16), at);
      if (s.chance(50)) view.setFloat64(at, (s.below(2000) - 1000) / 8, true);
      else if (s.chance(30)) view.setFloat32(at, (s.below(2000) - 1000) / 8, true);
    }
    if (s.chance(50)) {
      const at = (n: number): DataView =>
        new DataView(state.buffer, state.byteOffset + VECTOR_BASE + n * VECTOR_STRIDE);
      for (let n = 0; n < 16; n++) fillNumbers(s, at(n), 16, s.chance(70) ? 8 : 4);
    }
    // The precision flag is usually set already, so that nothing but the result has to be looked at.
    if (s.chance(50)) view.setUint32(MXCSR.offset, 0x1fa0 | (s.chance(20) ? s.word() & 0x803f : 0), true);
    else if (s.chance(49)) view.setUint32(MXCSR.offset, 0x1f80 ^ (s.word() & (s.chance(50) ? 0xe040 : 0xffc0)), true);
    if (s.chance(70)) {
      view.setUint32(FCW.offset, s.chance(70) ? 0x37f : 0x40 | (s.word() & 0xf3f), true);
      // A stack that is mostly neither empty nor full.
      const top = s.below(8);
      const filled = s.chance(70) ? 0x1f << (top + s.below(2)) : s.word();
      view.setUint32(FTW.offset, (filled | (filled >> 8)) & 0xff, true);
      view.setUint32(FSW.offset, (top << 11) | (s.below(16) << 8) | (s.chance(30) ? s.below(64) : 0), true);
      for (let n = 0; n < 8; n++) {
        view.setUint32(X87_BASE + n * 16 + 4, (0x80000000 | s.word()) >>> 0, true);
        if (s.chance(50)) view.setUint32(X87_BASE + n * 16, s.word(), true);
        view.setUint16(X87_BASE + n * 16 + 8, (0x3ff0 + s.below(32)) | (s.chance(50) ? 0x8000 : 0), true);
      }
    }
    this.translator.state.set(state.subarray(0, STATE_END));
    const from = s.below(POOL.length - DATA_BYTES);
    const data = Uint8Array.from(POOL.subarray(from, from + DATA_BYTES));
    if (s.chance(40)) fillNumbers(s, new DataView(data.buffer, 0x800), 256, s.chance(70) ? 8 : 4);
    else if (s.chance(60)) {
      // Doubles and extended numbers where memory operands mostly are.
      const numbers = new DataView(data.buffer, 0x800);
      for (let at = 0; at < 256; at += 16) {
        if (s.chance(50)) {
          numbers.setUint8(at + 7, 0x80 | s.below(128));
          numbers.setUint16(at + 8, (0x3ff0 + s.below(32)) | (s.below(2) << 15), true);
        } else for (const half of [0, 8]) numbers.setFloat64(at + half, (s.below(2000) - 1000) / 8, true);
      }
    }
    for (const side of this.sides) side.restore(AT.DATA, data);
  }

  private compare(what: () => string): void {
    const a = this.interpreter;
    const b = this.translator;
    const same = (from: number, to: number): boolean => a.state.compare(b.state, from, to, from, to) === 0;
    const { engine } = a.rig;
    const other = b.rig.engine;
    if (
      same(0, RIP.offset + 8) &&
      same(RFLAGS.offset, STATE_END) &&
      engine.rflags() === other.rflags() &&
      engine.retired() === other.retired()
    )
      return;
    const lines: string[] = [];
    const note = (name: string, is: string | number, expected: string | number): void => {
      if (is !== expected) lines.push(`  ${name} is ${is}, interpreted ${expected}`);
    };
    for (let n = 0; n < GPR_COUNT; n++) note(`r${n}`, other.gpr(n).toString(16), engine.gpr(n).toString(16));
    note("rflags", other.rflags().toString(16), engine.rflags().toString(16));
    note("retired", other.retired(), engine.retired());
    for (const field of STATE_FIELDS) {
      if (/^(flags|rflags|ripBase)/.test(field.name)) continue;
      note(field.name, other.get(field).toString(16), engine.get(field).toString(16));
    }
    for (let n = 0; n < 16; n++) {
      const at = VECTOR_BASE + n * VECTOR_STRIDE;
      note(`xmm${n}`, b.state.toString("hex", at, at + 16), a.state.toString("hex", at, at + 16));
    }
    for (let n = 0; n < 8; n++) {
      const at = X87_BASE + n * 16;
      note(`x87.${n}`, b.state.toString("hex", at, at + 16), a.state.toString("hex", at, at + 16));
    }
    throw new Difference(`${what()}\n${lines.join("\n")}`);
  }
}

function differs(cases: readonly Case[]): string | undefined {
  // Alone a program may need other regions than those that it had among others.
  for (const repeated of [REPEATED, 100]) {
    try {
      new RandomBlocks(repeated).runCases(cases);
    } catch (error) {
      if (!(error instanceof Difference)) throw error;
      return error.message;
    }
  }
  return undefined;
}

/** The failing program alone, with NOPs for every instruction that the difference does not need. */
function reduce(cases: readonly Case[], message: string): string {
  const [, seed] = /program (\d+)/.exec(message) ?? [];
  let found = cases.find((one) => String(one.seed) === seed);
  if (found === undefined || differs([found]) === undefined) found = cases.find((one) => differs([one]) !== undefined);
  if (found === undefined) return `${message}\n(programs ${cases[0].seed} to ${cases.at(-1)?.seed}, and none alone)`;
  const { program } = found;
  let bytes = program.bytes;
  const ends = [...program.instructions.slice(1), bytes.length];
  let last = differs([found]) ?? message;
  program.instructions.forEach((start, n) => {
    const tried = bytes.map((byte, at) => (at >= start && at < ends[n] ? 0x90 : byte));
    const still = differs([{ ...found, program: { ...program, bytes: tried } }]);
    if (still === undefined) return;
    bytes = tried;
    last = still;
  });
  const hex = program.instructions
    .map((start, n) => ({ start, code: bytes.slice(start, ends[n]) }))
    .filter(({ code }) => code.some((byte) => byte !== 0x90))
    .map(
      ({ start, code }) =>
        `  ${start.toString(16).padStart(4, "0")}: ${code.map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}`,
    );
  return `${last}\nat 0x${found.at.toString(16)}, all else NOP:\n${hex.join("\n")}`;
}
