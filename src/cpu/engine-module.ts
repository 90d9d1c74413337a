// The engine module: everything that executes guest code without being made from it (docs/architecture.md, "The engine module").
// It holds paging, memory access, decoder, blocks and the interpreter with a handler for every instruction.

import {
  changeSpace,
  exchange16,
  flushPage,
  flushSpace,
  flushTlb,
  type Helper,
  hostAddress,
  loadPdptes,
  pause,
  SERVICES,
  type Service,
  updateMode,
} from "../isa/helper.ts";
import type { Instruction } from "../isa/instruction.ts";
import { linearAddress, segmentAddress } from "../isa/segmentation.ts";
import {
  CPL,
  CR0,
  CR0_BIT,
  CR4,
  CR4_BIT,
  EFER,
  EFER_BIT,
  FLAG,
  MAXPHYADDR,
  PDPTE,
  RFLAGS,
  RIP_BASE,
  SEG_ATTR,
  SEGMENTS,
  SREG,
  VECTOR,
} from "../isa/state.ts";
import { deliverInterrupt, deliverPending } from "../isa/system/deliver.ts";
import { Code } from "../wasm/code.ts";
import type { Memory } from "../wasm/memory.ts";
import { type FuncRef, ModuleBuilder, type TableRef } from "../wasm/module.ts";
import { i32, i64, select, type Val } from "../wasm/value.ts";
import { emitBlocks, emitInvalidation } from "./blocks.ts";
import { emitInvalidateRange, emitSeal } from "./code-pages.ts";
import { buildOpcodeMaps } from "./decode-table.ts";
import { emitDecoder, layOutTables, PSEUDO } from "./decoder.ts";
import { IMPORT, ORDERED_EXPORT } from "./engine-imports.ts";
import { type EngineParts, HelperEnv } from "./env.ts";
import { type HandlerPlan, type HandlerSpec, planHandlers } from "./handlers.ts";
import { emitInterpreter } from "./interpreter.ts";
import { type InterpreterParts, InterpreterSemantics, type Usage } from "./interpreter-semantics.ts";
import { emitJournal } from "./journal.ts";
import {
  CPU_MEMORY_SIZE,
  DECODE_BASE,
  JOURNAL_END,
  LIMIT_NOW,
  RECORD,
  TLB_BASE,
  TLB_SETS,
  TLB_TABLE_SIZE,
  VAR,
} from "./layout.ts";
import { emitLockedAccess, type LockedFuncs } from "./locked-access.ts";
import { emitMemoryAccess, type Width } from "./memory-access.ts";
import { emitPaging } from "./paging.ts";
import { emitLock } from "./shared-lock.ts";
import { emitFlagFunctions } from "./translator/flags.ts";
import {
  checksAlignment,
  END_SECTION,
  emitIsBlock,
  emitRegionAccess,
  encodeEnds,
  encodeHandlers,
  HANDLER_SECTION,
  SUPPORT,
} from "./translator/support.ts";

/** Helpers are written when something first calls them, and once. */
class HelperStore {
  private readonly m: ModuleBuilder;
  private readonly known = new Map<Helper | Service, FuncRef>();
  private readonly unwritten: (() => void)[] = [];
  private readonly bodies = new Map<Helper, HelperEnv>();
  parts: EngineParts | undefined;

  constructor(m: ModuleBuilder) {
    this.m = m;
  }

  provide(service: Service, func: FuncRef): void {
    this.known.set(service, func);
  }

  func(target: Helper | Service): FuncRef {
    const known = this.known.get(target);
    if (known !== undefined) return known;
    if (!("body" in target)) throw new Error(`service ${target.name} is not provided`);
    const results = target.faults ? (["i32", ...target.results] as const) : target.results;
    const func = this.m.declare(target.name, target.params, results);
    this.known.set(target, func);
    this.unwritten.push(() =>
      this.m.define(func, (c) => {
        const x = new HelperEnv(c, this.parts as EngineParts, target.faults);
        this.bodies.set(target, x);
        target.body(x, ...c.params);
        // Every path has left by `done` or a raise.
        c.unreachable();
      }),
    );
    return func;
  }

  writeAll(): void {
    for (let next = this.unwritten.pop(); next !== undefined; next = this.unwritten.pop()) next();
  }

  /** The written helpers that leave registers and flags alone, and whatever they call too. */
  independent(): [Helper, FuncRef][] {
    const dependent = new Set<Helper | Service>();
    const isDependent = (target: Helper | Service): boolean => {
      const body = "body" in target ? this.bodies.get(target) : undefined;
      return body === undefined || body.usesRegisters || dependent.has(target);
    };
    for (let changed = true; changed; ) {
      changed = false;
      for (const [target, { callees }] of this.bodies) {
        if (dependent.has(target) || ![...callees].some(isDependent)) continue;
        dependent.add(target);
        changed = true;
      }
    }
    return [...this.bodies.keys()]
      .filter((target) => !isDependent(target))
      .map((target) => [target, this.known.get(target) as FuncRef]);
  }
}

interface Foundation {
  readonly m: ModuleBuilder;
  readonly cpu: Memory;
  readonly ram: Memory;
  readonly store: HelperStore;
  readonly parts: InterpreterParts;
  readonly env: (c: Code) => HelperEnv;
  readonly paging: ReturnType<typeof emitPaging>;
  readonly invalidatePage: FuncRef;
  readonly invalidateRange: FuncRef;
  readonly sealPage: FuncRef;
}

/** Memory limits are those of the memories that the host makes. */
export interface EngineMemoryLimits {
  readonly ramPages: number;
}

/** What does not depend on the instruction table: memory, paging, access paths, services. */
function emitFoundation(limits: EngineMemoryLimits, { journal, ordered }: EngineModuleOptions): Foundation {
  const m = new ModuleBuilder();
  const pages = (journal ? JOURNAL_END : CPU_MEMORY_SIZE) / 65536;
  const cpu = m.importMemory(IMPORT, "cpu", { min: pages, max: pages, shared: true });
  const ram = m.importMemory(IMPORT, "ram", { min: limits.ramPages, max: 65536, shared: true });
  const store = new HelperStore(m);
  for (const service of SERVICES) {
    if (service.host) store.provide(service, m.importFunc(IMPORT, service.name, service.params, service.results));
  }
  const mmioRead = m.importFunc(IMPORT, "mmioRead", ["i32", "i32", "i32"], ["i32"]);
  const mmioWrite = m.importFunc(IMPORT, "mmioWrite", ["i32", "i32", "i32", "i32"], []);
  const hostProtectPage = m.importFunc(IMPORT, "protectPage", ["i32"], []);
  const codeWritten = m.importFunc(IMPORT, "codeWritten", ["i32", "i32"], []);
  if (journal) emitJournal(m, cpu, ram);
  if (ordered) {
    ram.ordered = true;
    m.exportFunc(
      ORDERED_EXPORT,
      m.func(ORDERED_EXPORT, [], [], () => undefined),
    );
  }
  const slowLoads = new Map<Width, FuncRef>();
  const slowStores = new Map<Width, FuncRef>();
  let slowLocked: LockedFuncs["slowLocked"] | undefined;
  const holder: { probeWrite?: FuncRef; anyAddress?: FuncRef; offsetAddress?: FuncRef; anyEffectiveAddress?: FuncRef } =
    {};
  const need = (func: FuncRef | undefined): FuncRef => {
    if (func === undefined) throw new Error("a part of the engine module is used before it is written");
    return func;
  };
  const parts: InterpreterParts = {
    cpu,
    ram,
    func: (target) => store.func(target),
    slowLoad: (bits) => need(slowLoads.get(bits)),
    slowStore: (bits) => need(slowStores.get(bits)),
    slowLocked: (bits) => need(slowLocked?.get(bits)),
    get probeWrite() {
      return need(holder.probeWrite);
    },
    get anyAddress() {
      return need(holder.anyAddress);
    },
    get offsetAddress() {
      return need(holder.offsetAddress);
    },
    get anyEffectiveAddress() {
      return need(holder.anyEffectiveAddress);
    },
  };
  store.parts = parts;
  const env = (c: Code): HelperEnv => new HelperEnv(c, parts, c.type.results[0] === "i32");
  const paging = emitPaging(m, env);
  const lock = emitLock(m, ram);
  const sealPage = emitSeal(m, env, lock, paging.tlb.protectPage, hostProtectPage);
  const invalidatePage = emitInvalidation(m, env, PSEUDO.STALE);
  const invalidateRange = emitInvalidateRange(m, env, lock, invalidatePage, codeWritten);
  const access = emitMemoryAccess(m, env, paging, { mmioRead, mmioWrite }, invalidateRange);
  for (const [width, func] of access.slowLoad) slowLoads.set(width, func);
  for (const [width, func] of access.slowStore) slowStores.set(width, func);
  holder.probeWrite = access.probeWrite;
  const locked = emitLockedAccess(m, env, paging, lock, invalidateRange, access.checks, access);
  slowLocked = locked.slowLocked;
  store.provide(exchange16, locked.exchange16);
  store.provide(hostAddress, access.hostAddress);
  store.provide(flushTlb, paging.tlb.flushTlb);
  store.provide(flushPage, paging.tlb.flushPage);
  store.provide(flushSpace, paging.tlb.flushSpace);
  store.provide(changeSpace, paging.tlb.changeSpace);
  store.provide(pause, emitPause(m, cpu));
  store.provide(updateMode, emitUpdateMode(m, env, paging.tlb.retag));
  store.provide(loadPdptes, emitLoadPdptes(m, env, paging.hostOf));

  const effective = m.func("effectiveAddress", ["i32"], ["i64"], (c) => {
    const [record] = c.params;
    const how = c.let(cpu.ld8u(record, RECORD.ADDRESSING));
    const place = c.let(cpu.ld16u(record, RECORD.PLACE));
    const baseByte = c.let(cpu.ld8u(record, RECORD.B));
    const sum = c.local(
      "i64",
      cpu
        .ld64(baseByte)
        .add(cpu.ld64(cpu.ld8u(record, RECORD.C)).shl(how.and(3).zx()))
        .add(cpu.ld32s64(record, RECORD.DISP)),
    );
    c.if(baseByte.eq(RIP_BASE.offset).and(how.and(3)), () =>
      c.set(sum, sum.add(place.and(0xfff).add(place.shrU(12)).zx())),
    );
    const size = c.let(how.bits(2, 2));
    c.results([sum.and(select(size.eq(2), i64(-1), select(size.eq(1), i64(0xffffffff), i64(0xffff))))]);
  });
  holder.anyEffectiveAddress = effective;
  const offsetAddress = m.func("offsetAddress", ["i32", "i64", "i32", "i32"], ["i32", "i64"], (c) => {
    const x = env(c);
    const [record, offset, bytes, write] = c.params;
    const segment = c.let(cpu.ld8u(record, RECORD.ADDRESSING).bits(4, 3));
    c.if(cpu.ld32(0, VAR.CODE_MODE).eq(2), () => c.ret(0, x.call(linearAddress, segment, offset)), undefined, "likely");
    c.ret(0, x.call(segmentAddress, segment, offset, bytes, write));
    c.unreachable();
  });
  holder.offsetAddress = offsetAddress;
  holder.anyAddress = m.func("anyAddress", ["i32", "i64", "i32", "i32"], ["i32", "i64"], (c) => {
    const [record, displacement, bytes, write] = c.params;
    const size = c.let(cpu.ld8u(record, RECORD.ADDRESSING).bits(2, 2));
    const mask = select(size.eq(2), i64(-1), select(size.eq(1), i64(0xffffffff), i64(0xffff)));
    c.returnCall(offsetAddress, record, c.call(effective, record).add(displacement).and(mask), bytes, write);
    c.unreachable();
  });
  return { m, cpu, ram, store, parts, env, paging, invalidatePage, invalidateRange, sealPage };
}

/** Code mode, TLB tables and the tag of the jump cache, from the registers that decide them. */
function emitUpdateMode(m: ModuleBuilder, env: (c: Code) => HelperEnv, retag: FuncRef): FuncRef {
  return m.func("updateMode", [], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    const attr = c.let(x.get(SEGMENTS[SREG.CS].attr));
    const rflags = c.let(x.get(RFLAGS));
    const long = c.let(x.get(EFER).and(EFER_BIT.LMA).ne(0).and(attr.and(SEG_ATTR.L).ne(0)));
    const wide = attr.and(SEG_ATTR.DB).ne(0).and(rflags.and(FLAG.VM).eqz());
    const mode = c.let(select(long, i32(2), wide));
    c.st32(cpu, 0, mode, VAR.CODE_MODE);
    const end = x.get(SEGMENTS[SREG.CS].base).wrap().add(x.get(SEGMENTS[SREG.CS].limit)).add(1);
    c.st32(cpu, 0, select(long, i32(2), mode.or(end.and(0xfff).ne(0).shl(2))), VAR.CODE_KEY);
    c.st64(cpu, 0, select(long, i64(-1), i64(0xffffffff)), VAR.RIP_MASK);
    const overridden = x.get(CR4).and(CR4_BIT.SMAP).ne(0).and(rflags.and(FLAG.AC).ne(0));
    const set = select(
      x.get(CPL).eq(3),
      cpu.ld32(0, VAR.SPACE).add(TLB_SETS.USER),
      select(overridden, i32(TLB_SETS.SUPERVISOR_AC), i32(TLB_SETS.SUPERVISOR)),
    );
    const table = c.let(set.mul(2 * TLB_TABLE_SIZE).add(TLB_BASE));
    c.st32(cpu, 0, table, VAR.TLB_READ);
    c.st32(cpu, 0, table.add(TLB_TABLE_SIZE), VAR.TLB_WRITE);
    // The last of five masks of 8 bytes, or the first.
    c.st64(cpu, 0, cpu.ld64(checksAlignment(x).shl(5), VAR.TLB_MASK), VAR.UNALIGNED_MASK);
    c.invoke(retag);
  });
}

/** PDPTEs of PAE paging: reserved bits are 1-2, 5-8 and those above the physical address width (SDM Vol. 3A 4.4.1). */
function emitLoadPdptes(m: ModuleBuilder, env: (c: Code) => HelperEnv, hostOf: FuncRef): FuncRef {
  const reserved = 0x1e6n | (((1n << 64n) - 1n) & ~((1n << BigInt(MAXPHYADDR)) - 1n));
  return m.func("loadPdptes", ["i64"], ["i32"], (c) => {
    const x = env(c);
    const [cr3] = c.params;
    const pae = x.get(CR4).and(CR4_BIT.PAE).ne(0).and(x.get(EFER).and(EFER_BIT.LMA).eqz());
    c.if(pae.and(x.get(CR0).and(CR0_BIT.PG).ne(0)).eqz(), () => c.ret(0));
    const entries = PDPTE.map((_, n) => {
      const entry = c.local("i64", -1n);
      const host = c.let(c.call(hostOf, cr3.and(0xffffffe0n).add(n * 8)));
      c.if(host.ne(-1), () => c.set(entry, x.ram.ld64(host)));
      return entry;
    });
    for (const entry of entries) {
      c.if(entry.and(1).ne(0n).and(entry.and(reserved).ne(0n)), () => x.raise(VECTOR.GP, 0));
    }
    PDPTE.forEach((field, n) => {
      x.put(field, entries[n]);
    });
    c.results([0]);
  });
}

/** Ends the run by a kick where VAR.PAUSES says that this PAUSE is the last. */
function emitPause(m: ModuleBuilder, cpu: Memory): FuncRef {
  return m.func("pause", [], [], (c) => {
    const left = c.let(cpu.ld32(0, VAR.PAUSES).sub(1));
    c.st32(cpu, 0, left, VAR.PAUSES);
    c.if(left.eqz(), () => c.st32(cpu, 0, LIMIT_NOW, VAR.LIMIT), undefined, "unlikely");
  });
}

/** What regions import (src/cpu/translator). */
function emitTranslatorExports(
  m: ModuleBuilder,
  env: (c: Code) => HelperEnv,
  store: HelperStore,
  parts: EngineParts,
  table: TableRef,
  { paging, invalidateRange }: Foundation,
): void {
  m.exportTable(SUPPORT.TABLE, table);
  for (const [helper, func] of store.independent()) m.exportFunc(SUPPORT.HELPER + helper.name, func);
  // A service that leaves registers and flags alone, as those helpers do.
  m.exportFunc(SUPPORT.HELPER + pause.name, store.func(pause));
  emitRegionAccess(m, env, paging, invalidateRange);
  m.exportFunc(SUPPORT.IS_BLOCK, emitIsBlock(m, parts.cpu));
  const flags = emitFlagFunctions(m, parts.cpu);
  m.exportFunc(SUPPORT.FLAG_PARTS, flags.flagParts);
  m.exportFunc(SUPPORT.SPILL_FLAGS, flags.spillFlags);
}

export interface EngineModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly plan: HandlerPlan;
}

/** The record argument of a handler that is a function of its own. */
const HANDLER_TYPE = { params: ["i32"], results: ["i32"] } as const;

export interface EngineModuleOptions {
  /** Count executions by handler (HANDLER_COUNTS). */
  readonly countHandlers?: boolean;
  /** Stores to guest RAM note what they overwrite. */
  readonly journal?: boolean;
  /** Accesses to guest RAM are in order for other threads, for hosts whose own order is weaker than that of x86 processors. */
  readonly ordered?: boolean;
}

/** Builds the engine module for a set of instructions. `inlineNames` are the handlers inside the main loop, most frequent first. */
export function buildEngineModule(
  instructions: readonly Instruction[],
  inlineNames: readonly string[],
  limits: EngineMemoryLimits,
  options: EngineModuleOptions = {},
): EngineModule {
  const scratch = emitFoundation(limits, options);
  const probe = (spec: HandlerSpec): Usage => {
    const c = new Code(scratch.m, HANDLER_TYPE);
    const x = new InterpreterSemantics(
      c,
      scratch.parts,
      c.params[0],
      spec.row,
      spec.opcode,
      spec.size,
      spec.form,
      (status: number | Val) => c.ret(status),
    );
    try {
      x.emit();
    } catch (error) {
      throw new Error(`${spec.name}: ${(error as Error).message}`, { cause: error });
    }
    return x.usage;
  };
  const rank = new Map(inlineNames.map((name, i) => [name, i]));
  const plan = planHandlers(instructions, probe, rank);

  const base = emitFoundation(limits, options);
  const { m, env, store, parts } = base;
  const tables = layOutTables(plan.entries, buildOpcodeMaps(plan.entries));
  m.data(base.cpu, DECODE_BASE, tables.bytes);
  const decode = m.declare("decodeBlock", ["i64", "i32", "i32", "i32"], ["i32"]);
  const blocks = emitBlocks(m, env, base.paging, base.sealPage, decode);
  emitDecoder(m, env, tables, decode, blocks.translateFetch);

  const inlineCount = plan.handlers.filter((spec) => spec !== undefined && rank.has(spec.name)).length;
  const table = m.table(plan.handlers.length);
  const outOfLine: FuncRef[] = [];
  plan.handlers.forEach((spec) => {
    // Those that are inline too: regions call them.
    if (spec === undefined) return;
    outOfLine.push(
      m.func(spec.name, HANDLER_TYPE.params, HANDLER_TYPE.results, (c) => {
        new InterpreterSemantics(c, parts, c.params[0], spec.row, spec.opcode, spec.size, spec.form, (status) =>
          c.ret(status),
        ).emit();
        c.unreachable();
      }),
    );
  });
  m.elementSegment(table, PSEUDO.COUNT, outOfLine);
  const run = emitInterpreter({
    m,
    parts,
    table,
    handlerType: HANDLER_TYPE,
    inline: plan.handlers.slice(PSEUDO.COUNT, PSEUDO.COUNT + inlineCount) as HandlerSpec[],
    blocks,
    deliverPending: store.func(deliverPending),
    countHandlers: options.countHandlers === true,
  });
  m.exportFunc("run", run);
  m.exportFunc("deliverInterrupt", store.func(deliverInterrupt));
  m.exportFunc("updateMode", store.func(updateMode));
  m.exportFunc("resetTlb", base.paging.tlb.resetTlb);
  m.exportFunc("flushTlb", base.paging.tlb.flushTlb);
  m.exportFunc("flushBlocks", blocks.flushBlocks);
  m.exportFunc("invalidateRange", base.invalidateRange);
  m.exportFunc("invalidatePage", base.invalidatePage);
  m.exportFunc("protectPage", base.paging.tlb.protectPage);
  m.exportFunc("walk", base.paging.walk);
  m.exportFunc("blockAt", blocks.blockAt);
  m.exportFunc("lookup", blocks.lookup);
  m.exportFunc("decodeBlock", decode);
  store.writeAll();
  emitTranslatorExports(m, env, store, parts, table, base);
  m.customSection(HANDLER_SECTION, encodeHandlers(instructions, plan.handlers));
  m.customSection(END_SECTION, encodeEnds(plan.handlers));
  return { bytes: m.toBytes(), plan };
}
