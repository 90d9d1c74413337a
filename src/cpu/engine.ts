// The engine as the core sees it: one vCPU's memory, an instance of the engine module, and register access from outside.

import { CPUID_HEADER, CPUID_TABLE } from "../isa/cpuid-table.ts";
import { EXIT } from "../isa/exit.ts";
import { FEATURE_NAMES } from "../isa/features.ts";
import { flushScope } from "../isa/helper.ts";
import {
  ACTIVITY,
  ARITHMETIC_FLAGS,
  CPL,
  CR0,
  CR0_BIT,
  DR6,
  DR7,
  FCF,
  FCW,
  type Field,
  FLAG,
  FRES,
  FX,
  GDTR_LIMIT,
  GPR,
  IDTR_LIMIT,
  LDTR,
  MXCSR,
  NMI_BLOCKED,
  PENDING_ERROR,
  PENDING_VECTOR,
  RFLAGS,
  RIP,
  SEGMENTS,
  SHADOW,
  SREG,
  STATE_FIELDS,
  TR,
  VECTOR_BASE,
  VECTOR_STRIDE,
  X87_BASE,
  XCR0,
} from "../isa/state.ts";
import { EVENT as INJECTED } from "../isa/system/events.ts";
import { MSR_RESET } from "../isa/system/msrs.ts";
import { type Engine, type EngineHost, type EngineStatistics, INJECT, type MemorySlot } from "../vmm/engine.ts";
import { type Section, StateError } from "../vmm/state.ts";
import { CodePages } from "./code-pages.ts";
import { impossibleState } from "./control-state.ts";
import { IMPORT } from "./engine-imports.ts";
import { flagImage } from "./flag-image.ts";
import { JOURNAL_EXPORT } from "./journal.ts";
import { armKicks, kick, limitWord } from "./kick.ts";
import {
  CPU_MEMORY_SIZE,
  JOURNAL_END,
  PAGE_WORDS,
  SLOT_BASE,
  SLOT_MAX,
  SLOT_SIZE,
  TLB_EMPTY_TAG,
  VAR,
} from "./layout.ts";
import { WALK } from "./paging.ts";
import type { RegionChecker } from "./translator/check.ts";
import type { MakeTranslator, RegionTraces, Translator } from "./translator/translator.ts";

/** What of a CPU model the engine needs: feature names (src/isa/features.ts) and the contents of the CPUID table (src/isa/cpuid-table.ts). */
export interface EngineModel {
  readonly features: ReadonlySet<string>;
  readonly cpuidTable: Uint8Array;
  readonly cpuidTableAddress: number;
  /** EDX after reset: family, model and stepping (CPUID 1 EAX). */
  readonly signature: number;
}

export interface EngineOptions {
  /** Guest RAM, a page that is nobody's, and the code map behind it. */
  readonly ram: WebAssembly.Memory;
  /** Bytes of `ram` that slots may use. */
  readonly ramBytes: number;
  readonly slots: readonly MemorySlot[];
  readonly model: EngineModel;
  readonly host: EngineHost;
  /** The engine module (src/cpu/standard-module.ts). */
  readonly module: WebAssembly.Module;
  /** The vCPU's own memory (`newCpuMemory`), where other threads are to know it. */
  readonly memory?: WebAssembly.Memory;
  /** Makes the translator of hot code (src/cpu/translator); without one everything is interpreted. */
  readonly translator?: MakeTranslator | undefined;
  readonly regionTraces?: RegionTraces | undefined;
  /** Checks what is translated, for which the module must have a journal. */
  readonly checker?: RegionChecker | undefined;
}

/** Where the words about pages lie in the memory of guest RAM (src/cpu/code-pages.ts). */
export function codeMapOffset(ramBytes: number): number {
  return ramLayout(ramBytes, []).codeMap;
}

/** Size that the memory of guest RAM needs for `ramBytes` of RAM: behind it a page that is nobody's and the code map. */
export function ramMemoryBytes(ramBytes: number): number {
  const { codeMap, ramBits } = ramLayout(ramBytes, []);
  return codeMap + Math.ceil((2 ** (ramBits - 12) * PAGE_WORDS.SIZE) / 65536) * 65536;
}

/** A vCPU's own memory, with a journal where its engine module has one. What is not touched of it costs nothing. */
export function newCpuMemory(journal = false): WebAssembly.Memory {
  const pages = (journal ? JOURNAL_END : CPU_MEMORY_SIZE) / 65536;
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
}

/** Where what the engine keeps beside RAM lies. The page that is nobody's is one that no slot maps, so that the TLB's index can be short. */
function ramLayout(
  ramBytes: number,
  slots: readonly MemorySlot[],
): { emptyPage: number; codeMap: number; ramBits: number } {
  const behind = Math.ceil(ramBytes / 65536) * 65536;
  const free = slots
    .map((slot) => slot.host + slot.length)
    .find((page) => page < ramBytes && slots.every((slot) => page < slot.host || page >= slot.host + slot.length));
  const emptyPage = slots.length === 0 ? behind : (free ?? behind);
  const ramBits = Math.max(20, Math.ceil(Math.log2(Math.max(ramBytes, emptyPage + 4096))));
  return { emptyPage, codeMap: behind + 65536, ramBits };
}

interface EngineExports {
  run(): number;
  deliverInterrupt(vector: number, kind: number): number;
  updateMode(): void;
  resetTlb(): void;
  flushTlb(scope: number): void;
  flushBlocks(): void;
  blockAt(host: number): number;
  invalidateRange(host: number, bytes: number): void;
  invalidatePage(host: number): void;
  protectPage(host: number): void;
  walk(linear: bigint, access: number): [status: number, gpa: bigint, page: number];
}

/** Registers that INIT leaves alone (SDM Vol. 3A table 10-1): everything but what it names. */
const KEPT_BY_INIT = /^(msr\.|x87\.|tsc\.|mxcsr|xcr0)/;

export class TranslateEngine implements Engine {
  readonly memory: WebAssembly.Memory;
  private readonly view: DataView;
  private readonly limit: Int32Array;
  private readonly exports: EngineExports;
  /** Two of the exports, which V8 would look up by name each time. */
  private readonly execute: EngineExports["run"];
  private readonly deliver: EngineExports["deliverInterrupt"];
  private readonly codePages: CodePages;
  private readonly model: EngineModel;
  private readonly translator: Translator | undefined;
  private readonly checker: RegionChecker | undefined;
  private readonly host: EngineHost;
  private retiredBefore = 0;
  /** The budget of a run in progress. */
  private granted: number | undefined;

  constructor(options: EngineOptions) {
    const { checker } = options;
    const host = checker?.host.wrap(options.host) ?? options.host;
    this.checker = checker;
    this.host = host;
    this.model = options.model;
    const journal = WebAssembly.Module.exports(options.module).some(({ name }) => name === JOURNAL_EXPORT);
    this.memory = options.memory ?? newCpuMemory(journal);
    this.view = new DataView(this.memory.buffer);
    this.limit = limitWord(this.memory);
    const unsigned = (value: number): number => value >>> 0;
    const imports = {
      [IMPORT]: {
        cpu: this.memory,
        ram: options.ram,
        portIn: (port: number, bytes: number) => host.portIn(port & 0xffff, bytes),
        portOut: (port: number, bytes: number, value: number) => host.portOut(port & 0xffff, bytes, unsigned(value)),
        mmioRead: (low: number, high: number, bytes: number) => host.mmioRead(unsigned(low), unsigned(high), bytes),
        mmioWrite: (low: number, high: number, bytes: number, value: number) =>
          host.mmioWrite(unsigned(low), unsigned(high), bytes, unsigned(value)),
        hostReadMsr: (msr: number) => {
          const value = host.readMsr(unsigned(msr));
          return value === undefined ? [0, 0, 0] : [1, value[0] | 0, value[1] | 0];
        },
        hostWriteMsr: (msr: number, low: number, high: number) =>
          host.writeMsr(unsigned(msr), unsigned(low), unsigned(high)) ? 1 : 0,
        tscNow: () => host.tscNow(),
        readCr8: () => host.readCr8(),
        writeCr8: (value: number) => host.writeCr8(value),
        random32: () => host.random32(),
        protectPage: (page: number) => host.protectPage(unsigned(page)),
        codeWritten: (at: number, bytes: number) => host.codeWritten(unsigned(at), bytes),
        anomaly: (what: number, argument: number) => host.anomaly(what, argument),
      },
    };
    const instance = new WebAssembly.Instance(options.module, imports);
    this.exports = instance.exports as unknown as EngineExports;
    this.execute = this.exports.run;
    this.deliver = this.exports.deliverInterrupt;
    const { emptyPage, codeMap, ramBits } = ramLayout(options.ramBytes, options.slots);
    this.codePages = new CodePages(options.ram, codeMap);
    if (options.ram.buffer.byteLength < ramMemoryBytes(options.ramBytes)) {
      throw new RangeError("the memory of guest RAM has no room for the code map");
    }
    const { view } = this;
    view.setUint32(VAR.RAM_BITS, ramBits, true);
    view.setUint32(VAR.TLB_INDEX_MASK, (2 ** (ramBits - 12) - 1) * 8, true);
    for (let log = 0; log < 5; log++) {
      const above = BigInt.asUintN(64, -(1n << BigInt(ramBits)));
      view.setBigUint64(VAR.TLB_MASK + log * 8, above | BigInt((1 << log) - 1), true);
    }
    view.setBigUint64(VAR.TLB_EMPTY, TLB_EMPTY_TAG | BigInt(emptyPage), true);
    view.setUint32(VAR.CODE_MAP, codeMap, true);
    const { cpuidTable, cpuidTableAddress, features } = options.model;
    const bytes = new Uint8Array(this.memory.buffer);
    bytes.set(cpuidTable, cpuidTableAddress);
    for (const name of features) {
      const bit = FEATURE_NAMES.indexOf(name);
      if (bit >= 0) bytes[cpuidTableAddress + CPUID_HEADER.FEATURES + (bit >> 3)] |= 1 << (bit & 7);
    }
    this.setSlots(options.slots);
    this.reset("power-on");
    this.exports.flushBlocks();
    this.exports.resetTlb();
    checker?.attach({
      exports: instance.exports,
      cpu: this.memory,
      ram: options.ram,
      ramBytes: options.ramBytes,
    });
    this.translator = options.translator?.(
      {
        module: options.module,
        exports: instance.exports,
        cpu: this.memory,
        ram: options.ram,
        blockAt: (host) => this.exports.blockAt(host),
        regionsMade: (first, count) => checker?.guard(first, count),
      },
      options.regionTraces,
    );
  }

  run(budget: number, pauses = 0): number {
    // First armed, then asked: what is posted in between is either seen here or kicks the run that follows.
    armKicks(this.limit);
    if (this.host.requested?.() === true) return EXIT.BUDGET;
    this.view.setInt32(VAR.BUDGET, budget, true);
    this.view.setInt32(VAR.PAUSES, pauses, true);
    this.granted = budget;
    const reason = this.execute();
    this.retiredBefore = this.retired();
    this.granted = undefined;
    this.translator?.work();
    return reason;
  }

  requestExit(): void {
    kick(this.limit);
  }

  setPendingEvents(events: number): void {
    this.view.setUint32(VAR.EVENT_PENDING, events, true);
    if (events !== 0) this.requestExit();
  }

  canInject(kind: number): boolean {
    if (this.get(SHADOW) !== 0) return false;
    if (kind === INJECT.NMI) return this.get(NMI_BLOCKED) === 0;
    return ((this.get(RFLAGS) as number) & FLAG.IF) !== 0;
  }

  inject(kind: number, vector: number): boolean {
    this.set(ACTIVITY, 0);
    return this.deliver(vector, kind === INJECT.NMI ? INJECTED.NMI : INJECTED.EXTERNAL) === 0;
  }

  get(field: Field): number | bigint {
    return field.type === "i64" ? this.view.getBigUint64(field.offset, true) : this.view.getUint32(field.offset, true);
  }

  set(field: Field, value: number | bigint): void {
    if (field.type === "i64") this.view.setBigUint64(field.offset, BigInt.asUintN(64, BigInt(value)), true);
    else this.view.setUint32(field.offset, Number(value), true);
  }

  gpr(number: number): bigint {
    return this.view.getBigUint64(number * 8, true);
  }

  setGpr(number: number, value: bigint): void {
    this.view.setBigUint64(number * 8, BigInt.asUintN(64, value), true);
  }

  rflags(): number {
    return flagImage(this.view);
  }

  setRflags(value: number): void {
    const bit = (flag: number): number => ((value & flag) !== 0 ? 1 : 0);
    const zero = bit(FLAG.ZF);
    this.set(RFLAGS, ((value & ~ARITHMETIC_FLAGS) | 2) >>> 0);
    this.set(FRES, 1 - zero);
    this.set(FX, (BigInt(bit(FLAG.OF) ^ bit(FLAG.CF)) << 63n) | BigInt(value & FLAG.AF));
    this.set(FCF, bit(FLAG.CF) | (bit(FLAG.SF) << 8) | ((zero ^ bit(FLAG.PF)) << 16));
  }

  registersChanged(): void {
    this.exports.updateMode();
    this.exports.flushTlb(flushScope.ALL);
  }

  reset(kind: "power-on" | "init"): void {
    const kept = new Map<Field, number | bigint>();
    if (kind === "init")
      for (const field of STATE_FIELDS) if (KEPT_BY_INIT.test(field.name)) kept.set(field, this.get(field));
    const cacheBits = (this.get(CR0) as number) & (CR0_BIT.CD | CR0_BIT.NW);
    for (const field of STATE_FIELDS) this.set(field, 0);
    for (let n = 0; n < 16; n++) this.setGpr(n, 0n);
    this.setGpr(GPR.RDX, BigInt(this.model.signature));
    this.set(RIP, 0xfff0);
    this.setRflags(2);
    this.set(CR0, ((kind === "init" ? cacheBits : CR0_BIT.CD | CR0_BIT.NW) | CR0_BIT.ET) >>> 0);
    SEGMENTS.forEach(({ selector, attr, limit, base }, n) => {
      const code = n === SREG.CS;
      this.set(selector, code ? 0xf000 : 0);
      this.set(base, code ? 0xffff0000 : 0);
      this.set(limit, 0xffff);
      this.set(attr, code ? 0x9b : 0x93);
    });
    for (const [table, attr] of [
      [LDTR, 0x82],
      [TR, 0x8b],
    ] as const) {
      this.set(table.limit, 0xffff);
      this.set(table.attr, attr);
    }
    this.set(GDTR_LIMIT, 0xffff);
    this.set(IDTR_LIMIT, 0xffff);
    this.set(DR6, 0xffff0ff0);
    this.set(DR7, 0x400);
    this.set(PENDING_VECTOR, 0xffffffff);
    this.set(PENDING_ERROR, 0xffffffff);
    this.set(CPL, 0);
    this.set(ACTIVITY, 0);
    if (kind === "power-on") {
      this.set(MXCSR, 0x1f80);
      this.set(FCW, 0x40);
      this.set(XCR0, 1);
      for (const [field, value] of MSR_RESET) this.set(field, value);
      const bytes = new Uint8Array(this.memory.buffer);
      bytes.fill(0, VECTOR_BASE, VECTOR_BASE + 16 * VECTOR_STRIDE);
      bytes.fill(0, X87_BASE, X87_BASE + 8 * 16);
    }
    for (const [field, value] of kept) this.set(field, value);
    this.setPendingEvents(0);
    this.registersChanged();
  }

  memoryWritten(host: number, length: number): void {
    for (let at = host; at < host + length; ) {
      const end = Math.min(host + length, Math.floor(at / 4096) * 4096 + 4096);
      if (this.codePages.isClosed(at)) this.exports.invalidateRange(at, end - at);
      at = end;
    }
  }

  protectPage(page: number): void {
    this.exports.protectPage(page);
  }

  codeWritten(host: number, length: number): void {
    for (let page = host - (host % 4096); page < host + length; page += 4096) this.exports.invalidatePage(page);
  }

  protectAll(): void {
    this.exports.flushTlb(1);
  }

  dropCode(): void {
    this.exports.flushBlocks();
  }

  setSlots(slots: readonly MemorySlot[]): void {
    if (slots.length > SLOT_MAX) throw new RangeError(`${slots.length} memory slots are more than ${SLOT_MAX}`);
    const { view } = this;
    slots.forEach((slot, n) => {
      const at = SLOT_BASE + n * SLOT_SIZE;
      view.setBigUint64(at, BigInt(slot.gpa), true);
      view.setBigUint64(at + 8, BigInt(slot.gpa + slot.length), true);
      view.setUint32(at + 16, slot.host, true);
      view.setUint32(at + 20, slot.writable ? 1 : 0, true);
    });
    view.setUint32(VAR.SLOT_COUNT, slots.length, true);
    // The shortcut for low RAM covers the slot that maps 1 MiB to itself.
    const mib = 0x100000;
    const low = slots.find(
      (slot) => slot.gpa <= mib && slot.gpa + slot.length > mib && slot.host === slot.gpa && slot.writable,
    );
    view.setUint32(VAR.LOW_RAM_END, low === undefined ? mib : low.gpa + low.length, true);
    this.exports.flushTlb(flushScope.ALL);
  }

  translate(linear: bigint): number {
    const [status, gpa] = this.exports.walk(linear, WALK.PROBE | WALK.IMPLICIT);
    return status === 0 ? Number(gpa) : -1;
  }

  retired(): number {
    if (this.granted === undefined) return this.retiredBefore;
    return this.retiredBefore + this.granted - this.view.getInt32(VAR.BUDGET, true);
  }

  statistics(): EngineStatistics {
    const read = (at: number): number => this.view.getUint32(at, true);
    return {
      retired: this.retired(),
      blockLookups: read(VAR.COUNT_LOOKUPS),
      instructionsDecoded: read(VAR.COUNT_DECODED),
      pagesInvalidated: read(VAR.COUNT_INVALIDATED),
      pageWalks: read(VAR.COUNT_WALKS),
      pageFaults: read(VAR.COUNT_FAULTS),
      tlbFlushes: read(VAR.COUNT_TLB_FLUSHES),
      codeFlushes: read(VAR.COUNT_ARENA_FLUSHES),
      splitLocks: read(VAR.COUNT_SPLIT_LOCKS),
      ...(this.translator === undefined
        ? {}
        : {
            retiredInRegions: Number(this.view.getBigUint64(VAR.COUNT_IN_REGIONS, true)),
            retiredInterpreted: this.retired() - Number(this.view.getBigUint64(VAR.COUNT_IN_REGIONS, true)),
            regionMisses: read(VAR.COUNT_REGION_MISSES),
          }),
      ...this.translator?.statistics,
      ...this.checker?.counts,
    };
  }

  save(): Section {
    const fields: { [name: string]: number | bigint | Uint8Array } = {};
    for (let n = 0; n < 16; n++) fields[`gpr${n}`] = this.gpr(n);
    for (const field of STATE_FIELDS) if (field.saved) fields[field.name] = this.get(field);
    const bytes = new Uint8Array(this.memory.buffer);
    fields.vectors = bytes.slice(VECTOR_BASE, VECTOR_BASE + 16 * VECTOR_STRIDE);
    fields.x87 = bytes.slice(X87_BASE, X87_BASE + 8 * 16);
    return { kind: "vcpu", version: 1, fields };
  }

  check({ fields }: Section): void {
    const number = (name: string): number => Number(fields[name]) | 0;
    const impossible = impossibleState(
      {
        cr0: number("cr0"),
        cr3: BigInt(fields.cr3 as bigint),
        cr4: number("cr4"),
        efer: number("efer"),
        rflags: number("rflags"),
        activity: number("activity"),
      },
      new DataView(this.memory.buffer, CPUID_TABLE),
    );
    if (impossible !== undefined) throw new StateError(`no processor is in such a state: ${impossible}`);
  }

  restore(section: Section): void {
    if (section.kind !== "vcpu" || section.version !== 1) {
      throw new StateError(
        `section ${section.kind} version ${section.version} is no vCPU state that this program reads`,
      );
    }
    const take = (name: string): unknown => {
      const value = section.fields[name];
      if (value === undefined) throw new StateError(`field vcpu.${name} is missing`);
      return value;
    };
    for (let n = 0; n < 16; n++) this.setGpr(n, BigInt(take(`gpr${n}`) as bigint));
    for (const field of STATE_FIELDS) if (field.saved) this.set(field, take(field.name) as number | bigint);
    const bytes = new Uint8Array(this.memory.buffer);
    bytes.set((take("vectors") as Uint8Array).subarray(0, 16 * VECTOR_STRIDE), VECTOR_BASE);
    bytes.set((take("x87") as Uint8Array).subarray(0, 8 * 16), X87_BASE);
    this.setPendingEvents(0);
    this.registersChanged();
  }
}
