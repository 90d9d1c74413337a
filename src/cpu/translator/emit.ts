// A region as a WebAssembly function.

import { Code } from "../../wasm/code.ts";
import type { ModuleBuilder } from "../../wasm/module.ts";
import type { Val } from "../../wasm/value.ts";
import { PSEUDO } from "../decoder.ts";
import { RECORD, VAR } from "../layout.ts";
import { STATUS } from "../status.ts";
import { ControlFlow, type Edge } from "./control-flow.ts";
import type { BlockReader, Region } from "./region.ts";
import { DYNAMIC_FLAGS, type FlagState, REGION_TYPE, RegionCode, type RegionParts } from "./region-code.ts";
import { ConditionalFlags, type Outcome, RecordConstants, TranslatorSemantics, Untranslatable } from "./semantics.ts";

/** Counts what was done by handlers, by name, for whoever wants to know. */
export type MissCounter = (name: string) => void;

class RegionEmitter {
  private readonly code: RegionCode;
  private readonly region: Region;
  private readonly reader: BlockReader;
  private readonly missed: MissCounter;
  /** Flags at the end of the blocks written so far. */
  private readonly flagsAfter = new Map<number, FlagState>();

  constructor(code: RegionCode, region: Region, reader: BlockReader, missed: MissCounter) {
    this.code = code;
    this.region = region;
    this.reader = reader;
    this.missed = missed;
  }

  write(): void {
    const { blocks, entries } = this.region;
    const flow = new ControlFlow(blocks.length, entries);
    const taken: (Edge | undefined)[] = blocks.map((block, n) =>
      block.taken >= 0 ? flow.connect(n, block.taken) : undefined,
    );
    const notTaken: (Edge | undefined)[] = blocks.map((block, n) =>
      block.notTaken >= 0 ? flow.connect(n, block.notTaken) : undefined,
    );
    this.code.write((entry) =>
      flow.emit(this.code.c, entry, {
        emit: (node, go) => this.emitBlock(flow, node, taken[node], notTaken[node], go),
      }),
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

  private emitBlock(
    flow: ControlFlow,
    node: number,
    taken: Edge | undefined,
    notTaken: Edge | undefined,
    go: (edge: Edge) => void,
  ): void {
    const { code } = this;
    const { c } = code;
    const block = this.region.blocks[node];
    code.flags = this.flagsBefore(flow, node);
    let outcome: Outcome = { kind: "next" };
    let record = block.record;
    for (; record <= block.last; record += RECORD.SIZE) {
      const number = this.reader.handler(record, block.record);
      if (number === PSEUDO.FALL_THROUGH) break;
      outcome = this.emitInstruction(number, record);
      if (outcome.kind !== "next") break;
    }
    const edge = (to: Edge | undefined, status: number): void => {
      if (to === undefined) code.leave(status, block.last, this.target(block.last, status));
      else {
        this.charge(to === taken ? block.taken : block.notTaken);
        go(to);
      }
    };
    if (outcome.kind === "left") {
      c.unreachable();
      return;
    }
    if (outcome.kind === "lookup") {
      code.leave(STATUS.LOOKUP, block.last, outcome.target);
      return;
    }
    const after = code.settleFlags();
    code.holdFlags();
    this.flagsAfter.set(node, after);
    if (outcome.kind === "next") {
      edge(notTaken, STATUS.NOT_TAKEN);
    } else if (outcome.condition === undefined) {
      edge(taken, STATUS.TAKEN);
    } else {
      c.if(outcome.condition, () => {
        code.flags = after;
        edge(taken, STATUS.TAKEN);
      });
      code.flags = after;
      edge(notTaken, STATUS.NOT_TAKEN);
    }
  }

  /** Where a block's last record goes on. */
  private target(record: number, status: number): Val {
    const constants = new RecordConstants(this.reader.view, record);
    const { place } = constants;
    const step = (place >> 12) + (status === STATUS.TAKEN ? constants.number(RECORD.IMM) : 0);
    return this.code.ripBase.add(BigInt((place & 0xfff) + step));
  }

  /** Takes the instructions of the block that follows off the budget, as the interpreter does where it enters one; it has done so for
   *  the block where it enters the region. */
  private charge(node: number): void {
    const { code } = this;
    const { c, cpu } = code;
    const block = this.region.blocks[node];
    c.scope(() => {
      const budget = c.let(cpu.ld32(0, VAR.BUDGET));
      c.if(budget.leS(0), () => code.leave(STATUS.ENTER, block.record), undefined, "unlikely");
      c.st32(cpu, 0, budget.sub(block.instructions), VAR.BUDGET);
    });
  }

  private emitInstruction(number: number, record: number): Outcome {
    const { code } = this;
    const { c } = code;
    const spec = this.reader.handlers[number];
    let outcome: Outcome = { kind: "next" };
    if (spec === undefined) {
      // No instruction: the interpreter knows what it raises.
      code.leaveToInterpret(record, code.flags);
      return { kind: "left" };
    }
    const constants = new RecordConstants(this.reader.view, record);
    const mark = c.mark();
    const flags = code.flags;
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
        code.rewind(mark, flags);
        attempt(true);
      }
    } catch (error) {
      if (!(error instanceof Untranslatable)) throw error;
      code.rewind(mark, flags);
      this.missed(spec.name);
      c.scope(() => code.callHandler(number, record, record + RECORD.SIZE));
      code.holdFlags();
      // Where it ends the block for sure its status has been left with; else the block goes on, or falls through.
      outcome = { kind: "next" };
    }
    return outcome;
  }
}

/** Writes a region. */
export function emitRegion(
  m: ModuleBuilder,
  parts: RegionParts,
  region: Region,
  reader: BlockReader,
  missed: MissCounter,
): Code {
  const c = new Code(m, REGION_TYPE);
  new RegionEmitter(new RegionCode(c, parts), region, reader, missed).write();
  return c;
}
