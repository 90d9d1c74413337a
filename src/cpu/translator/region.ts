// Which blocks of a code page become one region: those that a hot block reaches by jumps within the page that have been taken, and the
// blocks behind its calls.

import { FORM } from "../decode-table.ts";
import { PSEUDO } from "../decoder.ts";
import type { HandlerSpec } from "../handlers.ts";
import { BLOCK, BLOCK_HASH, BLOCK_HASH_ENTRIES, RECORD, TAIL } from "../layout.ts";
import { ControlFlow } from "./control-flow.ts";

/** Limits of a region. */
const MAX_BLOCKS = 64;
const MAX_INSTRUCTIONS = 400;

/** VAR.CODE_MODE of 64-bit code, the only code that is translated. */
const MODE_64 = 2;

export interface RegionBlock {
  /** First and last record. */
  readonly record: number;
  readonly last: number;
  readonly instructions: number;
  /** Blocks of the region that follow, by their number; -1 where none does. */
  taken: number;
  notTaken: number;
}

export interface Region {
  readonly blocks: readonly RegionBlock[];
  /** Numbers of the blocks where the region may be entered. */
  readonly entries: readonly number[];
  readonly instructions: number;
}

/** Reads the blocks in a vCPU's memory. */
export class BlockReader {
  readonly view: DataView;
  readonly handlers: readonly (HandlerSpec | undefined)[];

  constructor(view: DataView, handlers: readonly (HandlerSpec | undefined)[]) {
    this.view = view;
    this.handlers = handlers;
  }

  private u32(at: number): number {
    return this.view.getUint32(at, true);
  }

  /** Handler number of a record of a block, the one that a region has displaced included. */
  handler(record: number, first: number): number {
    const number = this.view.getUint16(record + RECORD.HANDLER, true);
    return number === PSEUDO.ENTER_REGION && record === first
      ? this.view.getUint16(first - BLOCK.SIZE + BLOCK.ORIGINAL, true)
      : number;
  }

  isPatched(record: number): boolean {
    return this.view.getUint16(record + RECORD.HANDLER, true) === PSEUDO.ENTER_REGION;
  }

  /** Whether a block can be translated: alive, 64-bit code, within a page, and starting with an instruction. */
  isUsable(record: number): boolean {
    const block = record - BLOCK.SIZE;
    return (
      this.u32(block + BLOCK.HOST) !== 0xffffffff &&
      this.u32(block + BLOCK.MODE) === MODE_64 &&
      this.u32(block + BLOCK.HOST2) === 0 &&
      this.handlers[this.handler(record, record)] !== undefined
    );
  }

  /** The block of 64-bit code at a host address, or 0. */
  find(host: number): number {
    const hash = (host ^ (host >>> 14) ^ (MODE_64 << 7)) & (BLOCK_HASH_ENTRIES - 1);
    for (let block = this.u32(BLOCK_HASH + hash * 4); block !== 0; block = this.u32(block + BLOCK.HASH_NEXT)) {
      if (this.u32(block + BLOCK.HOST) === host && this.u32(block + BLOCK.MODE) === MODE_64) return block + BLOCK.SIZE;
    }
    return 0;
  }

  /** The region around a hot block. */
  discover(seed: number): Region {
    const numbers = new Map<number, number>();
    const blocks: RegionBlock[] = [];
    const returns: number[] = [];
    let instructions = 0;
    const add = (record: number): number => {
      const known = numbers.get(record);
      if (known !== undefined) return known;
      if (record === 0 || blocks.length >= MAX_BLOCKS || !this.isUsable(record)) return -1;
      const header = record - BLOCK.SIZE;
      const count = this.u32(header + BLOCK.COUNT);
      if (blocks.length > 0 && instructions + count > MAX_INSTRUCTIONS) return -1;
      instructions += count;
      const number = blocks.length;
      numbers.set(record, number);
      blocks.push({
        record,
        last: this.u32(header + BLOCK.LAST),
        instructions: count,
        taken: -1,
        notTaken: -1,
      });
      return number;
    };
    add(seed);
    for (let n = 0; n < blocks.length; n++) {
      const block = blocks[n];
      block.notTaken = add(this.u32(block.last + TAIL.NOT_TAKEN));
      block.taken = add(this.u32(block.last + TAIL.TAKEN));
      const spec = this.handlers[this.handler(block.last, block.record)];
      if (spec?.row.instruction.name !== "CALL" || spec.form > FORM.REGISTER_ANY) continue;
      const header = block.record - BLOCK.SIZE;
      const end = this.u32(header + BLOCK.HOST) + this.u32(header + BLOCK.LENGTH);
      if ((end & 0xfff) === 0) continue;
      const number = add(this.find(end));
      if (number >= 0) returns.push(number);
    }
    const edges = blocks.flatMap(({ taken, notTaken }, from) =>
      [taken, notTaken].filter((to) => to >= 0).map((to) => ({ from, to })),
    );
    const entries = new Set([0, ...returns, ...ControlFlow.backEdgeTargets(blocks.length, 0, edges)]);
    return { blocks, entries: [...entries], instructions };
  }
}
