// Which blocks become one region: those that a hot block reaches by jumps that have been taken, the blocks behind its calls, and what its
// calls and jumps reach in other pages.

import { PSEUDO } from "../decoder.ts";
import {
  BLOCK,
  BLOCK_HASH,
  BLOCK_HASH_ENTRIES,
  GOALS,
  GOALS_ENTRIES,
  JUMP_CACHE,
  JUMP_CACHE_ENTRIES,
  RECORD,
  TAIL,
} from "../layout.ts";
import { ControlFlow } from "./control-flow.ts";
import { END } from "./support.ts";

/** Limits of a region. Pages are bits of a mask, blocks are words of a descriptor. */
export interface RegionLimits {
  readonly blocks: number;
  readonly instructions: number;
  readonly pages: number;
  /** Instructions of a region that other regions have too, small functions and inner loops that are worth having twice: as many as are its own and
   *  `repeated` more, but at most `repeatedMost`. With 80 for all regions a boot translated each instruction six times. */
  readonly repeated: number;
  readonly repeatedMost: number;
}

export const LIMITS: RegionLimits = { blocks: 100, instructions: 500, pages: 16, repeated: 16, repeatedMost: 80 };
/** Of regions between which the guest goes to and fro. */
export const LARGE_LIMITS: RegionLimits = {
  blocks: 240,
  instructions: 1000,
  pages: 24,
  repeated: 1000,
  repeatedMost: 1000,
};
/** Blocks that an indirect jump or a return is compared with. */
const MAX_TARGETS = 48;

/** VAR.CODE_MODE of 64-bit code, the only code that is translated. */
const MODE_64 = 2;

const PAGE = -4096n;

export interface RegionBlock {
  /** Its first and last record in the region's copy of records. */
  readonly record: number;
  readonly last: number;
  readonly instructions: number;
  /** Where the guest's code of it lies: offset in the memory of guest RAM, and bytes. */
  readonly host: number;
  readonly length: number;
  /** Number of its page in the region. */
  readonly page: number;
  /** Blocks of the region that follow, by their number; -1 where none does. */
  taken: number;
  notTaken: number;
  /** Blocks where an indirect jump or a return at its end may go on. */
  targets: readonly number[];
}

/** Everything that a region is made from, and nothing of the vCPU that it was found on: it can be posted to another thread. */
export interface Region {
  readonly blocks: readonly RegionBlock[];
  /** The records of all blocks, with the handlers that they were decoded with. */
  readonly records: Uint8Array<ArrayBuffer>;
  /** The guest's code that they were decoded from. */
  readonly code: Uint8Array<ArrayBuffer>;
  /** Linear addresses of the pages, from that of the first on. */
  readonly pages: readonly bigint[];
  /** Numbers of the blocks where the region may be entered. */
  readonly entries: readonly number[];
  readonly instructions: number;
}

/** Reads the blocks in a vCPU's memory. */
export class BlockReader {
  readonly view: DataView;
  /** END bits by handler number. */
  readonly ends: Uint8Array;
  readonly ram: Uint8Array;
  /** First records of the blocks that are in a region. */
  readonly covered = new Set<number>();
  private goalsByRecord: Map<number, number[]> | undefined;

  constructor(view: DataView, ends: Uint8Array, ram: Uint8Array) {
    this.view = view;
    this.ends = ends;
    this.ram = ram;
  }

  u32(at: number): number {
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
      (this.ends[this.handler(record, record)] & END.INSTRUCTION) !== 0
    );
  }

  /** Low 12 bits of an instruction's address. */
  offset(record: number): number {
    return this.view.getUint16(record + RECORD.PLACE, true) & 0xfff;
  }

  /** The block of 64-bit code at a host address, or 0. */
  find(host: number): number {
    const hash = (host ^ (host >>> 14) ^ (MODE_64 << 7)) & (BLOCK_HASH_ENTRIES - 1);
    for (let block = this.u32(BLOCK_HASH + hash * 4); block !== 0; block = this.u32(block + BLOCK.HASH_NEXT)) {
      if (this.u32(block + BLOCK.HOST) === host && this.u32(block + BLOCK.MODE) === MODE_64) return block + BLOCK.SIZE;
    }
    return 0;
  }

  /** The block that the jump cache has for a linear address in whatever address space it last was, or 0. */
  cached(linear: bigint): number {
    const low = Number(BigInt.asUintN(32, linear));
    const middle = Number(BigInt.asUintN(32, linear >> 14n));
    const slot = JUMP_CACHE + ((low ^ middle) & (JUMP_CACHE_ENTRIES - 1)) * 16;
    return this.view.getBigUint64(slot, true) === BigInt.asUintN(64, linear) ? this.u32(slot + 8) : 0;
  }

  /** The linear address that the jump cache has by its low 32 bits. */
  cachedLinear(low: number): bigint | undefined {
    const slot = JUMP_CACHE + ((low ^ (low >>> 14)) & (JUMP_CACHE_ENTRIES - 1)) * 16;
    const linear = this.view.getBigInt64(slot, true);
    return Number(BigInt.asUintN(32, linear)) === low ? linear : undefined;
  }

  /** Low halves of the addresses where a block went on that ends in no relative jump, by its last record. */
  goals(last: number): readonly number[] {
    if (this.goalsByRecord === undefined) {
      this.goalsByRecord = new Map();
      for (let at = GOALS; at < GOALS + GOALS_ENTRIES * 8; at += 8) {
        const record = this.u32(at);
        if (record === 0) continue;
        const list = this.goalsByRecord.get(record);
        if (list === undefined) this.goalsByRecord.set(record, [this.u32(at + 4)]);
        else list.push(this.u32(at + 4));
      }
    }
    return this.goalsByRecord.get(last) ?? [];
  }

  /** To be called when the engine has run. */
  forgetGoals(): void {
    this.goalsByRecord = undefined;
  }

  heat(record: number): number {
    return this.u32(record - BLOCK.SIZE + BLOCK.HEAT);
  }
}

/** A block of the vCPU, while the region's are collected. */
interface Found {
  readonly record: number;
  readonly last: number;
  readonly instructions: number;
  readonly page: number;
  taken: number;
  notTaken: number;
  targets: readonly number[];
}

/** How a block ends, as far as it matters here. */
interface End {
  readonly isCall: boolean;
  readonly isReturn: boolean;
  readonly isIndirect: boolean;
  /** Whether it may go on behind its last instruction. */
  readonly falls: boolean;
  /** Offset from the block's linear page to behind its last instruction, and to the target of its relative jump. */
  readonly next: bigint;
  readonly target: bigint | undefined;
}

/** Collects the blocks of one region. */
class Discovery {
  private readonly reader: BlockReader;
  private readonly threshold: number;
  private readonly limits: RegionLimits;
  private readonly numbers = new Map<number, number>();
  private readonly blocks: Found[] = [];
  private readonly pages: bigint[] = [];
  private readonly hostPages: number[] = [];
  private readonly returns = new Set<number>();
  /** By block number: the block behind its call, where it ends with one. */
  private readonly behindCall = new Map<number, number>();
  private instructions = 0;
  private repeated = 0;

  /** `threshold`: the heat of hot blocks; those that are much colder stay out. */
  constructor(reader: BlockReader, threshold: number, limits: RegionLimits) {
    this.reader = reader;
    this.threshold = threshold;
    this.limits = limits;
  }

  private add(record: number, linearPage: bigint): number {
    const { reader } = this;
    const known = this.numbers.get(record);
    // The same code at two places is two regions' business.
    if (known !== undefined) return this.pages[this.blocks[known].page] === linearPage ? known : -1;
    if (record === 0 || this.blocks.length >= this.limits.blocks || !reader.isUsable(record)) return -1;
    const header = record - BLOCK.SIZE;
    const count = reader.u32(header + BLOCK.COUNT);
    if (this.blocks.length > 0) {
      if (this.instructions + count > this.limits.instructions) return -1;
      if (!this.isWarm(record)) return -1;
      if (reader.covered.has(record)) {
        const own = this.instructions - this.repeated;
        const { repeated, repeatedMost } = this.limits;
        if (this.repeated + count > Math.min(repeatedMost, repeated + own)) return -1;
        this.repeated += count;
      }
    }
    const hostPage = reader.u32(header + BLOCK.HOST) >>> 12;
    let page = this.pages.indexOf(linearPage);
    if (page < 0) {
      if (this.pages.length >= this.limits.pages) return -1;
      // One generation of the jump cache is for all pages of a region.
      if (this.pages.length > 0 && linearPage < 0n !== this.pages[0] < 0n) return -1;
      page = this.pages.length;
      this.pages.push(linearPage);
      this.hostPages.push(hostPage);
    } else if (this.hostPages[page] !== hostPage) {
      // What the jump cache has of another address space.
      return -1;
    }
    this.instructions += count;
    const number = this.blocks.length;
    this.numbers.set(record, number);
    this.blocks.push({
      record,
      last: reader.u32(header + BLOCK.LAST),
      instructions: count,
      page,
      taken: -1,
      notTaken: -1,
      targets: [],
    });
    return number;
  }

  private isWarm(record: number): boolean {
    // What a region has was warm when it was found, and may have begun to count anew since.
    return this.reader.covered.has(record) || this.reader.heat(record) * 32 >= this.threshold;
  }

  private endOf(block: Found): End {
    const { reader } = this;
    const bits = reader.ends[reader.handler(block.last, block.record)];
    const place = reader.view.getUint16(block.last + RECORD.PLACE, true);
    const next = BigInt((place & 0xfff) + (place >> 12));
    return {
      isCall: (bits & END.CALL) !== 0,
      isReturn: (bits & END.RETURN) !== 0,
      isIndirect: (bits & END.INDIRECT) !== 0,
      falls: (bits & END.INSTRUCTION) === 0 || (bits & END.FALLS) !== 0,
      next,
      target:
        (bits & END.RELATIVE) !== 0 ? next + BigInt(reader.view.getInt32(block.last + RECORD.IMM, true)) : undefined,
    };
  }

  /** A block at a distance from a page: a link's, or one of another page. */
  private follow(link: number, page: bigint, distance: bigint | undefined): number {
    if (link !== 0) return this.add(link, page);
    if (distance === undefined || (distance & PAGE) === 0n) return -1;
    const linear = page + distance;
    const record = this.reader.cached(linear);
    return record === 0 ? -1 : this.add(record, linear & PAGE);
  }

  /** The blocks as they are in the region, and copies of their records and of the code. */
  private copy(): Pick<Region, "blocks" | "records" | "code"> {
    const { reader } = this;
    const bytes = new Uint8Array(reader.view.buffer);
    const size = ({ record, last }: Found): number => last + RECORD.SIZE - record;
    const records = new Uint8Array(this.blocks.reduce((sum, block) => sum + size(block), 0));
    const view = new DataView(records.buffer);
    const lengthOf = (record: number): number => reader.u32(record - BLOCK.SIZE + BLOCK.LENGTH);
    const code = new Uint8Array(this.blocks.reduce((sum, { record }) => sum + lengthOf(record), 0));
    let at = 0;
    let codeAt = 0;
    const blocks = this.blocks.map((block): RegionBlock => {
      const { record, last, instructions, page, taken, notTaken, targets } = block;
      const first = at;
      const host = reader.u32(record - BLOCK.SIZE + BLOCK.HOST);
      const length = lengthOf(record);
      code.set(reader.ram.subarray(host, host + length), codeAt);
      codeAt += length;
      records.set(bytes.subarray(record, last + RECORD.SIZE), first);
      view.setUint16(first + RECORD.HANDLER, reader.handler(record, record), true);
      at += size(block);
      return {
        record: first,
        last: at - RECORD.SIZE,
        instructions,
        host,
        length,
        page,
        taken,
        notTaken,
        targets,
      };
    });
    return { blocks, records, code };
  }

  discover(seed: number, linearPage: bigint): { region: Region; records: number[] } {
    const { reader, blocks, pages } = this;
    this.add(seed, linearPage);
    const calls: number[] = [];
    const walk = (from: number): void => {
      for (let n = from; n < blocks.length; n++) {
        const block = blocks[n];
        const page = pages[block.page];
        const end = this.endOf(block);
        if (!end.isCall) {
          block.notTaken = this.follow(reader.u32(block.last + TAIL.NOT_TAKEN), page, end.falls ? end.next : undefined);
          block.taken = this.follow(reader.u32(block.last + TAIL.TAKEN), page, end.target);
        } else {
          calls.push(n);
          const record =
            (end.next & PAGE) === 0n
              ? reader.find(
                  reader.u32(block.record - BLOCK.SIZE + BLOCK.HOST) - reader.offset(block.record) + Number(end.next),
                )
              : reader.cached(page + end.next);
          const behind = record === 0 ? -1 : this.add(record, (page + end.next) & PAGE);
          if (behind >= 0) {
            this.returns.add(behind);
            this.behindCall.set(n, behind);
          }
        }
        if (end.isIndirect && !end.isCall) this.indirect(block);
      }
    };
    walk(0);
    // What the calls lead to comes last, so that it is what stays out where the region is full.
    for (let next = calls.shift(); next !== undefined; next = calls.shift()) {
      const block = blocks[next];
      const before = blocks.length;
      const { target, isIndirect } = this.endOf(block);
      if (isIndirect) this.indirect(block);
      block.taken =
        target === undefined ? -1 : this.follow(reader.u32(block.last + TAIL.TAKEN), pages[block.page], target);
      walk(before);
    }
    this.connectReturns();
    const edges = blocks.flatMap(({ taken, notTaken, targets }, from) =>
      [taken, notTaken, ...targets].filter((to) => to >= 0).map((to) => ({ from, to })),
    );
    const entries = new Set([0, ...this.returns, ...ControlFlow.backEdgeTargets(blocks.length, 0, edges)]);
    for (const { record } of blocks) reader.covered.add(record);
    const region = { ...this.copy(), pages, entries: [...entries], instructions: this.instructions };
    return { region, records: blocks.map(({ record }) => record) };
  }

  /** An indirect jump or call goes where it went before. */
  private indirect(block: Found): void {
    const { reader } = this;
    const targets = new Set<number>();
    for (const low of reader.goals(block.last)) {
      const linear = reader.cachedLinear(low);
      const number = linear === undefined ? -1 : this.add(reader.cached(linear), linear & PAGE);
      if (number >= 0 && targets.size < MAX_TARGETS) targets.add(number);
    }
    block.targets = [...targets];
  }

  /** A return goes on behind the calls of the region from which it can be reached without returning before. */
  private connectReturns(): void {
    const { blocks } = this;
    const targets = new Map<number, Set<number>>();
    for (const [caller, behind] of this.behindCall) {
      const seen = new Set<number>();
      const pending = [blocks[caller].taken, ...blocks[caller].targets];
      for (let n = pending.pop(); n !== undefined; n = pending.pop()) {
        if (n < 0 || seen.has(n)) continue;
        seen.add(n);
        const block = blocks[n];
        const end = this.endOf(block);
        if (end.isReturn) {
          const list = targets.get(n);
          if (list === undefined) targets.set(n, new Set([behind]));
          else if (list.size < MAX_TARGETS) list.add(behind);
        } else if (end.isCall) pending.push(this.behindCall.get(n) ?? -1);
        else pending.push(block.taken, block.notTaken, ...block.targets);
      }
    }
    for (const [n, list] of targets) blocks[n].targets = [...list];
  }
}

/** The region around a hot block that was seen at a linear page, and the first records of its blocks. */
export function discoverRegion(
  reader: BlockReader,
  seed: number,
  linearPage: bigint,
  threshold: number,
  limits: RegionLimits,
): { readonly region: Region; readonly records: readonly number[] } {
  return new Discovery(reader, threshold, limits).discover(seed, linearPage);
}
