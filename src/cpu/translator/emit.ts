// A region as a WebAssembly function.

import { Code } from "../../wasm/code.ts";
import type { ModuleBuilder } from "../../wasm/module.ts";
import type { Val } from "../../wasm/value.ts";
import { PSEUDO } from "../decoder.ts";
import type { HandlerSpec } from "../handlers.ts";
import { RECORD, VAR } from "../layout.ts";
import { STATUS } from "../status.ts";
import { Neighbourhoods } from "./access-scan.ts";
import { ControlFlow, type Edge } from "./control-flow.ts";
import { disassemble } from "./disassembly.ts";
import type { Region } from "./region.ts";
import { DYNAMIC_FLAGS, type FlagState, type RecordPlace, RegionCode, type RegionParts } from "./region-code.ts";
import { HANDLER_TYPE } from "./region-jump.ts";
import { ConditionalFlags, type Outcome, RecordConstants, TranslatorSemantics } from "./semantics.ts";
import { Untranslatable } from "./untranslatable.ts";
import { common, type Knowledge, NOTHING_KNOWN, VectorUse } from "./vectors.ts";

/** Counts what was done by handlers, by name, for whoever wants to know. */
export type MissCounter = (name: string) => void;

/** The ways from a block to others of the region. */
interface Exits {
  readonly taken: Edge | undefined;
  readonly notTaken: Edge | undefined;
  readonly targets: readonly { readonly target: number; readonly edge: Edge }[];
}

class RegionEmitter {
  private readonly code: RegionCode;
  private readonly region: Region;
  private readonly handlers: readonly (HandlerSpec | undefined)[];
  private readonly records: DataView;
  private readonly missed: MissCounter;
  /** Instructions stand as text before their code. */
  private readonly withNotes: boolean;
  /** Flags at the end of the blocks written so far. */
  private readonly flagsAfter = new Map<number, FlagState>();
  private readonly knownAfter = new Map<number, Knowledge>();

  constructor(
    code: RegionCode,
    region: Region,
    handlers: readonly (HandlerSpec | undefined)[],
    missed: MissCounter,
    withNotes: boolean,
  ) {
    this.code = code;
    this.region = region;
    this.handlers = handlers;
    this.records = new DataView(region.records.buffer, region.records.byteOffset, region.records.byteLength);
    this.missed = missed;
    this.withNotes = withNotes;
  }

  private note(number: number, record: number, page: number): void {
    const linear = this.region.pages[page];
    const address = linear + BigInt(this.records.getUint16(record + RECORD.PLACE, true) & 0xfff);
    const text = disassemble(this.handlers[number], this.records, record, linear);
    this.code.c.note(`${BigInt.asUintN(64, address).toString(16)}  ${text}`);
  }

  write(): void {
    const { blocks, entries } = this.region;
    const flow = new ControlFlow(blocks.length, entries);
    const connect = (from: number, to: number): Edge | undefined => (to >= 0 ? flow.connect(from, to) : undefined);
    const exits: Exits[] = blocks.map((block, n) => ({
      taken: connect(n, block.taken),
      notTaken: connect(n, block.notTaken),
      targets: block.targets.map((target) => ({ target, edge: flow.connect(n, target) })),
    }));
    const entryPages = entries.map((number) => blocks[number].page);
    this.code.write(entryPages, entries, (entry) =>
      flow.emit(this.code.c, entry, { emit: (node, go) => this.emitBlock(flow, node, exits[node], go) }),
    );
  }

  /** What is known of the flags at the start of a block. */
  private flagsBefore(flow: ControlFlow, node: number): FlagState {
    const states = (flow.predecessors(node) ?? []).map((p) => this.flagsAfter.get(p));
    const [first] = states;
    if (first === undefined || first.source.kind === "dynamic") return DYNAMIC_FLAGS;
    const same = (state: FlagState | undefined): boolean => {
      if (state === undefined || state.source.kind !== first.source.kind) return false;
      return !("bits" in first.source) || ("bits" in state.source && state.source.bits === first.source.bits);
    };
    return states.every(same) ? first : DYNAMIC_FLAGS;
  }

  private knownBefore(flow: ControlFlow, node: number): Knowledge {
    const known = (flow.predecessors(node) ?? []).map((p) => this.knownAfter.get(p) ?? NOTHING_KNOWN);
    return common(known);
  }

  private emitBlock(flow: ControlFlow, node: number, exits: Exits, go: (edge: Edge) => void): void {
    const { code } = this;
    const { c } = code;
    const block = this.region.blocks[node];
    code.flags = this.flagsBefore(flow, node);
    code.vectors.known = this.knownBefore(flow, node);
    code.page = block.page;
    code.floats.startBlock(node);
    code.groups.forget();
    code.neighbourhoods = new Neighbourhoods(this.records, block.record, block.last, this.handlers);
    code.nesting = c.nesting;
    let outcome: Outcome = { kind: "next" };
    for (let record = block.record; record <= block.last; record += RECORD.SIZE) {
      const number = this.records.getUint16(record + RECORD.HANDLER, true);
      if (number === PSEUDO.FALL_THROUGH) break;
      if (this.withNotes) this.note(number, record, block.page);
      outcome = this.emitInstruction(number, this.constants(node, record));
      if (outcome.kind !== "next") break;
    }
    if (outcome.kind === "left") {
      c.unreachable();
      return;
    }
    if (outcome.kind === "lookup") {
      this.emitIndirect(node, outcome.target, exits, go);
      return;
    }
    const after = code.settleFlags();
    code.holdFlags();
    this.flagsAfter.set(node, after);
    this.knownAfter.set(node, code.vectors.known);
    const floats = code.floats.knowledge;
    const edge = (to: Edge | undefined, number: number, status: number): void => {
      code.flags = after;
      code.floats.forget(floats);
      code.page = block.page;
      const leave = (): void => code.leave(status, this.place(node, block.last), this.target(node, status));
      if (to === undefined) leave();
      else this.goTo(to, number, leave, go);
    };
    const takenEdge = (): void => edge(exits.taken, block.taken, STATUS.TAKEN);
    if (outcome.kind === "jump" && outcome.condition !== undefined) c.if(outcome.condition, takenEdge);
    if (outcome.kind === "jump" && outcome.condition === undefined) takenEdge();
    else edge(exits.notTaken, block.notTaken, STATUS.NOT_TAKEN);
  }

  /** A jump whose target is known when it is made: compared with the blocks that it may be. */
  private emitIndirect(node: number, target: Val, exits: Exits, go: (edge: Edge) => void): void {
    const { code } = this;
    const { c } = code;
    const block = this.region.blocks[node];
    if (exits.targets.length === 0) {
      code.leave(STATUS.LOOKUP, this.place(node, block.last), target);
      return;
    }
    c.set(code.goal, target);
    const after = code.settleFlags();
    code.holdFlags();
    this.flagsAfter.set(node, after);
    this.knownAfter.set(node, code.vectors.known);
    const floats = code.floats.knowledge;
    const leave = (): void => {
      code.flags = after;
      code.page = block.page;
      code.leave(STATUS.LOOKUP, this.place(node, block.last), code.goal);
    };
    const addressOf = (number: number): bigint =>
      this.region.pages[this.region.blocks[number].page] + BigInt(this.offset(number));
    const sorted = exits.targets.toSorted((a, b) => (addressOf(a.target) < addressOf(b.target) ? -1 : 1));
    const search = (from: number, to: number): void => {
      if (to - from > 3) {
        const middle = (from + to) >> 1;
        const { target: number } = sorted[middle];
        c.if(code.goal.ltU(code.rip(this.offset(number), this.region.blocks[number].page)), () => search(from, middle));
        search(middle, to);
        return;
      }
      for (const { target: number, edge } of sorted.slice(from, to)) {
        c.if(code.goal.eq(code.rip(this.offset(number), this.region.blocks[number].page)), () => {
          code.flags = after;
          code.floats.forget(floats);
          code.page = block.page;
          this.goTo(edge, number, leave, go);
        });
      }
      leave();
    };
    search(0, sorted.length);
  }

  /** Goes on in a block of the region. */
  private goTo(edge: Edge, number: number, leave: () => void, go: (edge: Edge) => void): void {
    this.code.enterBlock(number, this.offset(number), this.region.blocks[number].page, leave);
    this.charge(number);
    this.code.meetFloats(number);
    go(edge);
  }

  private place(node: number, record: number): RecordPlace {
    return { block: node, distance: record - this.region.blocks[node].record };
  }

  private constants(node: number, record: number): RecordConstants {
    return new RecordConstants(this.records, record, this.place(node, record));
  }

  /** Low 12 bits of a block's address. */
  private offset(node: number): number {
    return this.records.getUint16(this.region.blocks[node].record + RECORD.PLACE, true) & 0xfff;
  }

  /** Where a block's last record goes on. */
  private target(node: number, status: number): Val {
    const constants = this.constants(node, this.region.blocks[node].last);
    const { place } = constants;
    const step = (place >> 12) + (status === STATUS.TAKEN ? constants.number(RECORD.IMM) : 0);
    return this.code.rip((place & 0xfff) + step);
  }

  /** Takes the instructions of the block that follows off the budget, as the interpreter does where it enters one; it has done so for
   *  the block where it enters the region. */
  private charge(node: number): void {
    const { code } = this;
    const { c, cpu } = code;
    const block = this.region.blocks[node];
    const leave = code.toLeave(STATUS.ENTER, this.place(node, block.record), code.flags, block.page);
    c.brIf(leave, code.budget.leS(cpu.ld32(0, VAR.LIMIT)), "unlikely");
    c.set(code.budget, code.budget.sub(block.instructions));
  }

  private emitInstruction(number: number, constants: RecordConstants): Outcome {
    const { code } = this;
    const { c } = code;
    const spec = this.handlers[number];
    let outcome: Outcome = { kind: "next" };
    if (spec === undefined) {
      // No instruction: the interpreter knows what it raises.
      code.leaveToInterpret(constants.at, code.flags);
      return { kind: "left" };
    }
    const mark = c.mark();
    const flags = code.flags;
    const { known } = code.vectors;
    const floats = code.floats.knowledge;
    const groups = code.groups.knowledge;
    const attempt = (flagsInLocals: boolean): void =>
      c.scope(() => {
        if (flagsInLocals) {
          code.commitFlags(code.flags);
          code.flags = { source: code.flags.source, committed: true };
        }
        outcome = new TranslatorSemantics(code, constants, spec, flagsInLocals).emit();
        code.holdFlags();
      });
    try {
      try {
        attempt(false);
      } catch (error) {
        if (!(error instanceof ConditionalFlags)) throw error;
        code.rewind(mark, flags, known, floats, groups);
        attempt(true);
      }
    } catch (error) {
      if (!(error instanceof Untranslatable)) throw error;
      code.rewind(mark, flags, known, floats, groups);
      this.missed(spec.name);
      c.scope(() => code.callHandler(number, constants.at, mayUseVectors(spec), mayUseFloats(spec)));
      code.holdFlags();
      // Where it ends the block for sure its status has been left with; else the block goes on, or falls through.
      outcome = { kind: "next" };
    }
    return outcome;
  }
}

/** Whether an instruction that its handler does may look at vector registers: those that have one for an operand, or an area of memory. */
function mayUseVectors({ row }: HandlerSpec): boolean {
  return row.operands.some(({ kind, size }) => /^[VWUPQN]$/.test(kind) || (kind === "M" && size === ""));
}

/** The same of x87 registers and of what decides whether they may be used: x87 and MMX instructions, areas of memory, those that change CR0. */
function mayUseFloats({ row }: HandlerSpec): boolean {
  const isX87 = row.map === 0 && ((row.opcode >= 0xd8 && row.opcode <= 0xdf) || row.opcode === 0x9b);
  const named = /^(EMMS|CLTS|LMSW)$/.test(row.instruction.name);
  return (
    isX87 || named || row.operands.some(({ kind, size }) => /^[PQNC]$/.test(kind) || (kind === "M" && size === ""))
  );
}

/** The vector registers that the instructions of a region use, and how. */
function vectorUse(region: Region, handlers: readonly (HandlerSpec | undefined)[], records: DataView): VectorUse {
  const use = new VectorUse();
  for (const block of region.blocks) {
    for (let record = block.record; record <= block.last; record += RECORD.SIZE) {
      const spec = handlers[records.getUint16(record + RECORD.HANDLER, true)];
      if (spec !== undefined) use.add(spec, records, record);
    }
  }
  return use;
}

/** Writes a region; `slot` is its number among all regions. */
export function emitRegion(
  m: ModuleBuilder,
  parts: RegionParts,
  region: Region,
  slot: number,
  handlers: readonly (HandlerSpec | undefined)[],
  missed: MissCounter,
  withNotes = false,
): Code {
  const c = new Code(m, HANDLER_TYPE);
  const records = new DataView(region.records.buffer, region.records.byteOffset, region.records.byteLength);
  const lanes = vectorUse(region, handlers, records).lanes();
  const code = new RegionCode(c, parts, region.pages, slot, lanes);
  new RegionEmitter(code, region, handlers, missed, withNotes).write();
  return c;
}
