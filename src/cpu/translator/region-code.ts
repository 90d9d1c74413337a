// The code of one region while it is being written: the guest's registers and flags in locals, and the ways out, which put them back into
// the vCPU's memory.

import {
  DEBUG_TRAPS,
  DR7,
  FCF,
  type Field,
  FLAG,
  FRES,
  FX,
  GPR_COUNT,
  RFLAGS,
  RIP,
  RIP_BASE,
} from "../../isa/state.ts";
import { type Code, type Label, Local, type Mark } from "../../wasm/code.ts";
import type { Memory } from "../../wasm/memory.ts";
import type { FuncRef, FuncType, TableRef } from "../../wasm/module.ts";
import { i32, type Operand, op, select, type Val } from "../../wasm/value.ts";
import type { EngineParts } from "../env.ts";
import { BLOCK, DESCRIPTOR, DESCRIPTOR_SIZE, DESCRIPTORS, ENTRY_COUNTS, RECORD, VAR } from "../layout.ts";
import { STATUS } from "../status.ts";
import { jumpTag } from "../tlb.ts";
import type { Neighbourhoods } from "./access-scan.ts";
import { FLAG_KIND, type FlagParts, type FlagSource, partsOf, sourceOfKind, widthIndex } from "./flags.ts";
import { type FloatKnowledge, FloatRegisters } from "./float-stack.ts";
import { type GroupKnowledge, PageGroups } from "./page-groups.ts";
import { emitGoOn, HANDLER_TYPE } from "./region-jump.ts";
import { SUPPORT } from "./support.ts";
import { type Knowledge, type Lane, NOTHING_KNOWN, VectorRegisters } from "./vectors.ts";

/** What the code of regions is written against. */
export interface RegionParts extends EngineParts {
  readonly table: TableRef;
  /** An export of the engine module (SUPPORT) as a function of this module. */
  support(name: string, type: FuncType): FuncRef;
  /** Index mask of the TLB in use, and the masks of aligned accesses by log2 of their bytes. */
  readonly tlbIndexMask: number;
  readonly tlbMasks: readonly bigint[];
}

/** The flags at some place: where they come from, and whether the flag locals hold just that. */
export interface FlagState {
  readonly source: FlagSource;
  readonly committed: boolean;
}

export const DYNAMIC_FLAGS: FlagState = { source: { kind: "dynamic" }, committed: true };

/** A record of the region: number of its block, and distance from that block's first record. */
export interface RecordPlace {
  readonly block: number;
  readonly distance: number;
}

/** How a region leaves, in one constant: number of the block (10 bits), number of the record in it, page, status. */
const WAY_OUT = { RECORD: 10, PAGE: 17, STATUS: 22 } as const;

function wayOut(status: number, { block, distance }: RecordPlace, page: number): number {
  const record = distance / RECORD.SIZE;
  if (block >> WAY_OUT.RECORD !== 0 || record >> (WAY_OUT.PAGE - WAY_OUT.RECORD) !== 0)
    throw new RangeError("a region is too large");
  return block | (record << WAY_OUT.RECORD) | (page << WAY_OUT.PAGE) | (status << WAY_OUT.STATUS);
}

/** VAR.CODE_KEY of 64-bit code. */
const MODE_64 = 2;

const SPILL_TYPE: FuncType = { params: ["i32", "i64", "i64", "i32"], results: [] };
const IS_BLOCK_TYPE: FuncType = { params: ["i64", "i32", "i32", "i64", "i32"], results: ["i32"] };
const PARTS_TYPE: FuncType = { params: ["i32", "i64", "i64", "i32"], results: ["i64", "i64", "i32"] };

/** What passes between locals and the vCPU's memory at a place. */
type Transfer = "load" | "save" | "load vectors" | "save vectors" | "load floats" | "save floats" | "controls";

export class RegionCode {
  readonly c: Code;
  readonly parts: RegionParts;
  readonly cpu: Memory;
  readonly gprs: readonly Local[];
  readonly tlb: Local;
  /** VAR.BUDGET while no handler runs. */
  readonly budget: Local;
  readonly floats: FloatRegisters;
  /** The flags where code is being written. */
  flags: FlagState = DYNAMIC_FLAGS;
  /** Number of the page where code is being written. */
  page = 0;
  readonly vectors: VectorRegisters;
  readonly groups: PageGroups;
  /** What the accesses of the block that is being written probably share lookups with. */
  neighbourhoods: Neighbourhoods | undefined;
  /** Blocks of WebAssembly that are open between instructions. */
  nesting = 0;
  /** What depends on control registers alone, by key: computed where they may have changed. */
  private readonly controls = new Map<string, { readonly local: Local; readonly compute: () => Val }>();
  private readonly pages: readonly bigint[];
  private readonly descriptor: number;
  private readonly entered: number;
  /** RIP of the first page of the region; the others lie at known distances. */
  private readonly base: Local;
  /** Pages that are known to be where they were when the region was made. */
  private readonly mapped: Local;
  /** Where an indirect jump or a return goes. */
  readonly goal: Local;
  private readonly invalidations: Local;
  private readonly flagKind: Local;
  private readonly flagA: Local;
  private readonly flagB: Local;
  private readonly flagCarry: Local;
  private readonly status: Local;
  private readonly at: Local;
  /** As `wayOut` makes it. */
  private readonly way: Local;
  private readonly target: Local;
  private readonly used = new Set<number>();
  private readonly written = new Set<number>();
  /** Where registers are to be loaded, and saved, once it is known which. */
  private places: { readonly mark: Mark; readonly what: Transfer; readonly depth: () => Operand }[] = [];
  private readonly held = new Map<number, Local>();
  private saveAll: Label | undefined;
  private chain: Label | undefined;
  private saved: Label | undefined;

  /** `pages`: RIP of the region's pages where it was found. `slot`: its number among all regions. */
  constructor(
    c: Code,
    parts: RegionParts,
    pages: readonly bigint[],
    slot: number,
    lanes: ReadonlyMap<number, Lane | undefined>,
  ) {
    this.c = c;
    this.vectors = new VectorRegisters(c, parts.cpu, lanes);
    this.pages = pages;
    this.descriptor = DESCRIPTORS + slot * DESCRIPTOR_SIZE;
    this.entered = ENTRY_COUNTS + slot * 4;
    this.parts = parts;
    this.cpu = parts.cpu;
    this.gprs = Array.from({ length: GPR_COUNT }, () => c.local("i64"));
    const numbers = new Map(this.gprs.map((local, n) => [local, n]));
    this.groups = new PageGroups(
      (local) => numbers.get(local),
      () => c.variable("i32"),
    );
    this.groups.forget();
    c.onFixed = (value, local) => this.groups.fixed(value, local);
    this.floats = new FloatRegisters(c, this.cpu);
    this.base = c.local("i64");
    this.mapped = c.local("i32");
    this.goal = c.local("i64");
    this.tlb = c.local("i32");
    this.budget = c.local("i32");
    this.invalidations = c.local("i32");
    this.flagKind = c.local("i32");
    this.flagA = c.local("i64");
    this.flagB = c.local("i64");
    this.flagCarry = c.local("i32");
    this.status = c.local("i32");
    this.at = c.local("i32");
    this.way = c.local("i32");
    this.target = c.local("i64");
  }

  /** Writes the whole function; `body` gets the number of the entry and never falls off its end. By entry, the number of its page, and of its block. */
  write(entryPages: readonly number[], entries: readonly number[], body: (entry: Local) => void): void {
    const { c, cpu } = this;
    c.block((saved) => {
      this.saved = saved;
      c.block((chain) => {
        this.chain = chain;
        c.block((saveAll) => {
          this.saveAll = saveAll;
          c.st32(cpu, 0, cpu.ld32(0, this.entered).add(1), this.entered);
          const entry = c.local("i32", cpu.ld16u(c.params[0].sub(BLOCK.SIZE - BLOCK.ENTRY)));
          this.loadRegisters(true);
          this.later("load floats", () =>
            entries.reduce<Val>((depth, block, n) => {
              const own = this.floats.depthOf(block);
              return own === 0 ? depth : select(entry.eq(n), i32(own), depth);
            }, i32(0)),
          );
          c.set(this.invalidations, cpu.ld32(0, VAR.COUNT_INVALIDATED));
          this.enterPage(entry, entryPages);
          body(entry);
        });
        this.takeWayOut();
        // The flags that most jumps out of regions have.
        c.if(this.flagKind.eq(FLAG_KIND.LOGIC), () => {
          c.st64(cpu, 0, this.flagA, FRES.offset);
          c.st64(cpu, 0, 0, FX.offset);
          c.st32(cpu, 0, 0, FCF.offset);
          c.set(this.flagKind, FLAG_KIND.MEMORY);
        });
        this.saveRegisters(true);
        this.later("save floats");
      });
      c.if(this.target.ne(0n), () =>
        emitGoOn(c, cpu, this.parts.table, this.target, (record) => {
          c.set(this.at, record);
          c.set(this.status, STATUS.ENTER);
        }),
      );
    });
    c.st32(cpu, 0, this.at, VAR.IP);
    c.results([this.status]);
    for (const { mark, what, depth } of this.places.toReversed()) c.insert(mark, () => this.transfer(what, depth));
  }

  /** Where the region leaves by `way`: VAR.IP, status and page. */
  private takeWayOut(): void {
    const { c, cpu, way } = this;
    const block = way.and((1 << WAY_OUT.RECORD) - 1).shl(2);
    const distance = way.bits(WAY_OUT.RECORD, WAY_OUT.PAGE - WAY_OUT.RECORD).mul(RECORD.SIZE);
    c.set(this.at, cpu.ld32(block, this.descriptor + DESCRIPTOR.BLOCKS).add(distance));
    c.set(this.status, way.shrU(WAY_OUT.STATUS));
    if (this.pages.length === 1) return;
    c.switch(
      way.bits(WAY_OUT.PAGE, WAY_OUT.STATUS - WAY_OUT.PAGE),
      this.pages.slice(1).map((_, page) => [[page + 1], () => this.setPage(page + 1)]),
      () => this.setPage(0),
    );
  }

  private transfer(what: Transfer, depth: () => Operand): void {
    const { c, cpu } = this;
    switch (what) {
      case "load":
        for (const n of this.used) c.set(this.gprs[n], cpu.ld64(0, n * 8));
        return;
      case "save":
        for (const n of this.written) c.st64(cpu, 0, this.gprs[n], n * 8);
        return;
      case "load vectors":
        this.vectors.load();
        return;
      case "save vectors":
        this.vectors.save();
        return;
      case "load floats":
        this.floats.load(depth());
        return;
      case "save floats":
        this.floats.save();
        return;
      case "controls":
        for (const { local, compute } of this.controls.values()) c.set(local, compute());
    }
  }

  /** `depth`: that of the x87 stack where it is loaded. */
  private later(what: Transfer, depth: () => Operand = () => 0): void {
    this.places.push({ mark: this.c.mark(), what, depth });
  }

  private enterPage(entry: Local, entryPages: readonly number[]): void {
    const { c, cpu } = this;
    c.set(this.base, cpu.ld64(0, RIP_BASE.offset));
    if (this.pages.length === 1) return;
    c.set(this.mapped, 1);
    c.switch(
      entry,
      [...new Set(entryPages)]
        .filter((page) => page !== 0)
        .map((page) => [
          entryPages.flatMap((p, n) => (p === page ? [n] : [])),
          () => {
            c.set(this.base, this.base.sub(this.pages[page] - this.pages[0]));
            c.set(this.mapped, 1 << page);
          },
        ]),
      () => undefined,
    );
    this.recallPages(this.mapped);
  }

  /** Takes up what was known of the region's pages before, where nothing has changed since; `page` (a bit) is known anew. */
  private recallPages(page: Operand): void {
    const { c, cpu, descriptor } = this;
    const changed = cpu
      .ld32(0, descriptor + DESCRIPTOR.TAG)
      .xor(jumpTag(cpu, this.base))
      .or(cpu.ld32(0, descriptor + DESCRIPTOR.INVALIDATIONS).xor(this.invalidations));
    const same = changed.eqz().and(cpu.ld64(0, descriptor + DESCRIPTOR.BASE).eq(this.base));
    c.set(this.mapped, select(same, cpu.ld32(0, descriptor + DESCRIPTOR.PAGES), i32(0)).or(page));
  }

  /** An instruction pointer by its offset from a page, that of the code being written unless told. */
  rip(offset: number, page = this.page): Val {
    return this.base.add(this.pages[page] - this.pages[0] + BigInt(offset));
  }

  /** Address of a record on the vCPU that runs. */
  private addressOf({ block, distance }: RecordPlace): Val {
    return this.cpu.ld32(0, this.descriptor + DESCRIPTOR.BLOCKS + block * 4).add(distance);
  }

  /** Makes sure that a block (its number, offset in its page) of another page is where it was when the region was made; `otherwise` leaves. */
  enterBlock(block: number, offset: number, page: number, otherwise: () => void): void {
    if (page === this.page) return;
    const { c } = this;
    c.if(
      this.mapped.and(1 << page).eqz(),
      () =>
        c.scope(() => {
          const known = this.parts.support(SUPPORT.IS_BLOCK, IS_BLOCK_TYPE);
          const pages = this.mapped.or(1 << page);
          const record = this.addressOf({ block, distance: 0 });
          const found = c.call(known, this.rip(offset, page), record, this.descriptor, this.base, pages);
          c.if(found.eqz(), otherwise, undefined, "unlikely");
          c.set(this.mapped, pages);
        }),
      undefined,
      "unlikely",
    );
  }

  /** Not zero where the lookup of a block would do more than to find it (src/cpu/blocks.ts). */
  private needsLook(): Val {
    const { cpu } = this;
    const field = ({ offset }: Field): Val => cpu.ld32(0, offset);
    return field(DEBUG_TRAPS)
      .or(cpu.ld32(0, VAR.EVENT_PENDING))
      .or(field(RFLAGS).and(FLAG.TF))
      .or(field(DR7).and(0xff))
      .or(cpu.ld32(0, VAR.CODE_KEY).xor(MODE_64));
  }

  /** Sets RIP_BASE for a record in a page. */
  private setPage(page: number): void {
    if (this.pages.length > 1) this.c.st64(this.cpu, 0, this.rip(0, page), RIP_BASE.offset);
  }

  private loadRegisters(withVectors: boolean): void {
    const { c, cpu } = this;
    this.later("load");
    if (withVectors) this.later("load vectors");
    this.later("controls");
    c.set(this.tlb, cpu.ld32(0, VAR.TLB_READ));
    c.set(this.budget, cpu.ld32(0, VAR.BUDGET));
    c.set(this.flagKind, FLAG_KIND.MEMORY);
  }

  private saveRegisters(withVectors: boolean): void {
    const { c } = this;
    c.st32(this.cpu, 0, this.budget, VAR.BUDGET);
    this.later("save");
    if (withVectors) this.later("save vectors");
    const spill = this.parts.support(SUPPORT.SPILL_FLAGS, SPILL_TYPE);
    c.if(this.flagKind, () => c.invoke(spill, this.flagKind, this.flagA, this.flagB, this.flagCarry));
  }

  register(number: number): Local {
    this.used.add(number);
    return this.gprs[number];
  }

  setRegister(number: number, value: Val): void {
    this.used.add(number);
    this.written.add(number);
    this.groups.setRegister(number, value, this.c.nesting !== this.nesting);
    this.c.set(this.gprs[number], value);
  }

  // Control registers

  /** A value that depends on control registers alone. */
  control(key: string, compute: () => Val): Val {
    let known = this.controls.get(key);
    if (known === undefined) {
      known = { local: this.c.variable(compute().type), compute };
      this.controls.set(key, known);
    }
    return known.local;
  }

  /** To be called where control registers have changed. */
  reloadControls(): void {
    this.later("controls");
    this.vectors.known = { ...this.vectors.known, required: new Set() };
  }

  // Ways out

  /** Leaves with a status for a record, everything done up to here. `target`: the RIP that it goes on at, where another region may begin. */
  leave(status: number, record: RecordPlace, target?: Val, page = this.page): void {
    if (target !== undefined) this.c.set(this.target, target);
    this.leaveWith(status, record, this.flags, page);
  }

  /** Leaves before a record, for the interpreter to do it; `flags` are those before it. */
  leaveToInterpret(record: RecordPlace, flags: FlagState): void {
    this.leaveWith(STATUS.INTERPRET, record, flags);
  }

  /** Leaves because the instruction at the record raised an exception; `flags` are those before it. */
  leaveFault(record: RecordPlace, flags: FlagState): void {
    this.leaveWith(STATUS.FAULT, record, flags);
  }

  private leaveWith(status: number, record: RecordPlace, flags: FlagState, page = this.page): void {
    this.c.br(this.toLeave(status, record, flags, page));
  }

  /** What has to be done before branching to the label, which leaves. It does no harm where the branch is not taken: flag locals whose flags
   *  are not committed hold nothing. */
  toLeave(status: number, record: RecordPlace, flags: FlagState, page = this.page): Label {
    this.commitFlags(flags);
    this.c.set(this.way, wayOut(status, record, page));
    return this.saveAll as Label;
  }

  /** Does an instruction by its handler; nothing comes behind where it ends the block for sure. `usesVectors`: it may look at vector registers. */
  callHandler(handler: number, place: RecordPlace, usesVectors: boolean, usesFloats: boolean): void {
    const { c, cpu } = this;
    this.setPage(this.page);
    this.commitFlags(this.flags);
    this.saveRegisters(usesVectors);
    if (usesFloats) this.later("save floats");
    const record = c.let(this.addressOf(place));
    const [status] = c.callIndirect(this.parts.table, HANDLER_TYPE, i32(handler), [record]);
    c.if(
      status,
      () => {
        if (!usesVectors) this.later("save vectors");
        if (!usesFloats) this.later("save floats");
        c.set(this.at, record);
        c.set(this.status, status);
        c.brIf(this.saved as Label, status.ne(STATUS.LOOKUP).or(this.needsLook()));
        c.set(this.target, cpu.ld64(0, RIP.offset));
        c.br(this.chain as Label);
      },
      undefined,
      "unlikely",
    );
    c.if(
      cpu.ld32(0, VAR.COUNT_INVALIDATED).ne(this.invalidations),
      () => {
        if (!usesVectors) this.later("save vectors");
        if (!usesFloats) this.later("save floats");
        c.set(this.at, record.add(RECORD.SIZE));
        c.set(this.status, STATUS.INTERPRET);
        c.br(this.saved as Label);
      },
      undefined,
      "unlikely",
    );
    this.loadRegisters(usesVectors);
    if (usesFloats) {
      const { depth } = this.floats;
      this.later("load floats", () => depth);
      this.floats.reloaded();
    }
    if (this.pages.length > 1) this.recallPages(1 << this.page);
    this.flags = DYNAMIC_FLAGS;
    this.vectors.known = NOTHING_KNOWN;
    this.groups.forget();
  }

  /** Makes the x87 stack what a block of the region takes it for, where control is about to go on there. */
  meetFloats(block: number): void {
    if (this.floats.meets(block)) return;
    const depth = this.floats.depthOf(block);
    this.later("save floats");
    this.later("load floats", () => depth);
  }

  // Flags

  /** Brings flags into the flag locals. */
  commitFlags(state: FlagState): void {
    if (state.committed) return;
    const { c } = this;
    const { source } = state;
    const wide = (value: Val): Val => value.zx();
    switch (source.kind) {
      case "sub":
      case "add":
        c.set(this.flagA, wide(source.a));
        c.set(this.flagB, wide(source.b));
        c.set(this.flagKind, (source.kind === "sub" ? FLAG_KIND.SUB : FLAG_KIND.ADD) + widthIndex(source.bits));
        return;
      case "logic":
        c.set(this.flagA, partsOf(source).fres);
        c.set(this.flagKind, FLAG_KIND.LOGIC);
        return;
      case "compare": {
        const bits = (value: Val): Val =>
          op("i64.reinterpret_f64", value.type === "f32" ? op("f64.promote_f32", value) : value);
        c.set(this.flagA, bits(source.a));
        c.set(this.flagB, bits(source.b));
        c.set(this.flagKind, FLAG_KIND.COMPARE);
        return;
      }
      case "step":
      case "product":
      case "parts": {
        const parts = partsOf(source);
        c.set(this.flagA, parts.fres);
        c.set(this.flagB, parts.fx);
        c.set(this.flagCarry, parts.fcf);
        c.set(this.flagKind, FLAG_KIND.PARTS);
        return;
      }
      case "dynamic":
        return;
    }
  }

  /** Brings the flags into the flag locals at the end of a block. Gives what holds at the start of those that follow. */
  settleFlags(): FlagState {
    const { source } = this.flags;
    this.commitFlags(this.flags);
    const fixed = (local: Local): Local => new Local(local.type, local.index, true);
    const kind =
      source.kind === "dynamic"
        ? undefined
        : source.kind === "logic"
          ? FLAG_KIND.LOGIC
          : source.kind === "sub" || source.kind === "add"
            ? (source.kind === "sub" ? FLAG_KIND.SUB : FLAG_KIND.ADD) + widthIndex(source.bits)
            : source.kind === "compare"
              ? FLAG_KIND.COMPARE
              : FLAG_KIND.PARTS;
    const held =
      kind === undefined ? undefined : sourceOfKind(kind, fixed(this.flagA), fixed(this.flagB), fixed(this.flagCarry));
    this.flags = { source: held ?? { kind: "dynamic" }, committed: true };
    return this.flags;
  }

  /** The stored form of the flags. */
  flagParts(): FlagParts {
    const { source } = this.flags;
    if (source.kind !== "dynamic") return partsOf(source);
    const { c } = this;
    const func = this.parts.support(SUPPORT.FLAG_PARTS, PARTS_TYPE);
    const [fres, fx, fcf] = c.callMany(func, [this.flagKind, this.flagA, this.flagB, this.flagCarry]);
    return { fres, fx, fcf };
  }

  /** Keeps what the flags are made of beyond the scope that is about to close, and frees what they were made of before. */
  holdFlags(): void {
    const { c } = this;
    const { source } = this.flags;
    const values =
      source.kind === "dynamic"
        ? []
        : source.kind === "parts"
          ? [source.fres, source.fx, source.fcf]
          : source.kind === "logic"
            ? [source.r]
            : source.kind === "step"
              ? [source.a, source.r, source.carry]
              : source.kind === "product"
                ? [source.r, ...source.from]
                : source.kind === "compare"
                  ? [source.a, source.b]
                  : [source.a, source.b, ...(source.r === undefined ? [] : [source.r])];
    for (const value of values) if (value instanceof Local && c.hold(value)) this.held.set(value.index, value);
    for (const [index, local] of this.held) {
      if (values.some((value) => value instanceof Local && value.index === index)) continue;
      c.release(local);
      this.held.delete(index);
    }
  }

  /** Takes back the code since `mark`. */
  rewind(mark: Mark, flags: FlagState, known: Knowledge, floats: FloatKnowledge, groups: GroupKnowledge): void {
    this.groups.return(groups);
    this.floats.forget(floats);
    this.c.rewind(mark);
    this.vectors.known = known;
    this.places = this.places.filter((place) => place.mark.length <= mark.length);
    this.flags = flags;
  }
}
