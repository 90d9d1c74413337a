// The regions that a vCPU has: instances of modules at their table slots, descriptors that tell where this vCPU has a region's blocks, and the
// blocks whose entries lead to regions.

import { PSEUDO } from "../decoder.ts";
import { IMPORT } from "../engine-imports.ts";
import { BLOCK, DESCRIPTOR, DESCRIPTOR_SIZE, DESCRIPTORS, ENTRY_COUNTS, RECORD, REGIONS_MAX, VAR } from "../layout.ts";
import { type CompileReply, MODULE_REGIONS, type RegionInfo } from "./compile-service.ts";
import type { BlockReader } from "./region.ts";
import { SUPPORT } from "./support.ts";
import type { TranslatorHost } from "./translator.ts";

const TABLE_STEP = 4096;

interface Installed {
  readonly regions: readonly RegionInfo[];
  readonly bytes: number;
  /** Which of its regions this vCPU has blocks for, and how often they were entered. */
  readonly live: boolean[];
  readonly entered: number[];
}

type Install = CompileReply & { readonly kind: "install" };

export class Installer {
  private readonly host: TranslatorHost;
  private readonly reader: BlockReader;
  private readonly table: WebAssembly.Table;
  private readonly imports: { [name: string]: WebAssembly.ImportValue };
  private readonly modules = new Map<number, Installed>();
  /** By region's number: entries since they were last counted. */
  private readonly entryCounts: Uint32Array;
  /** Table slot of the region with number 0. */
  readonly firstSlot: number;

  constructor(host: TranslatorHost, reader: BlockReader) {
    this.host = host;
    this.reader = reader;
    this.table = host.exports[SUPPORT.TABLE] as WebAssembly.Table;
    this.firstSlot = this.table.length;
    this.entryCounts = new Uint32Array(host.cpu.buffer, ENTRY_COUNTS, REGIONS_MAX);
    this.imports = { ...(host.exports as typeof this.imports), cpu: host.cpu, ram: host.ram };
  }

  get moduleCount(): number {
    return this.modules.size;
  }

  /** Bytes of the modules. */
  get bytes(): number {
    let sum = 0;
    for (const { bytes } of this.modules.values()) sum += bytes;
    return sum;
  }

  /** Takes in a module where the reply brings one. */
  add({ module, made }: Install): void {
    if (made === undefined) return;
    const missing = this.firstSlot + (module + 1) * MODULE_REGIONS - this.table.length;
    if (missing > 0) this.table.grow(Math.max(TABLE_STEP, missing));
    new WebAssembly.Instance(made.code, { [IMPORT]: this.imports });
    this.host.regionsMade?.(this.firstSlot + module * MODULE_REGIONS, made.regions.length);
    this.modules.set(module, { regions: made.regions, bytes: made.bytes, live: [], entered: [] });
  }

  region(module: number, index: number): RegionInfo | undefined {
    return this.modules.get(module)?.regions[index];
  }

  /** Hands the code of a region over to it. `decode`: blocks that are not here are decoded; `replace`: entries of other regions become its own. */
  install(module: number, index: number, decode: boolean, replace: boolean): "done" | "changed" | "absent" {
    const { view } = this.reader;
    const installed = this.modules.get(module);
    if (installed === undefined) return "absent";
    const region = installed.regions[index];
    if (!this.isSame(region)) return "changed";
    const records = this.recordsOf(region, decode);
    if (records === undefined) return "absent";
    const number = module * MODULE_REGIONS + index;
    const descriptor = DESCRIPTORS + number * DESCRIPTOR_SIZE;
    this.entryCounts[number] = 1;
    view.setUint32(descriptor + DESCRIPTOR.PAGES, 0, true);
    records.forEach((record, block) => {
      view.setUint32(descriptor + DESCRIPTOR.BLOCKS + block * 4, record, true);
    });
    region.entries.forEach((block, entry) => {
      this.patch(records[block], entry, this.firstSlot + number, replace);
    });
    installed.live[index] = true;
    return "done";
  }

  /** Whether the guest's code is still what the region was made from. */
  private isSame({ blocks, code }: RegionInfo): boolean {
    const { ram } = this.reader;
    let at = 0;
    for (const { host, length } of blocks) {
      for (let n = 0; n < length; n++) if (ram[host + n] !== code[at + n]) return false;
      at += length;
    }
    return true;
  }

  /** This vCPU's blocks of a region; undefined where some are not there. */
  private recordsOf(region: RegionInfo, decode: boolean): number[] | undefined {
    const { reader } = this;
    const { view } = reader;
    const flushes = reader.u32(VAR.COUNT_ARENA_FLUSHES);
    const records: number[] = [];
    for (const { host, length, instructions } of region.blocks) {
      let record = reader.find(host);
      if (record === 0) {
        // Its first block at least has been executed here.
        if (records.length === 0 || !decode) return undefined;
        const block = this.host.blockAt(host);
        if (block === 0 || reader.u32(VAR.COUNT_ARENA_FLUSHES) !== flushes) return undefined;
        record = block + BLOCK.SIZE;
      }
      const header = record - BLOCK.SIZE;
      if (view.getUint32(header + BLOCK.COUNT, true) !== instructions) return undefined;
      if (view.getUint32(header + BLOCK.LENGTH, true) !== length) return undefined;
      records.push(record);
    }
    return records;
  }

  /** Lets a block lead into a region, unless it leads into another and that is not to be replaced. */
  private patch(record: number, entry: number, slot: number, replace: boolean): void {
    const { view } = this.reader;
    const isPatched = this.reader.isPatched(record);
    if (isPatched && !replace) return;
    const header = record - BLOCK.SIZE;
    if (!isPatched) view.setUint16(header + BLOCK.ORIGINAL, view.getUint16(record + RECORD.HANDLER, true), true);
    view.setUint16(header + BLOCK.ENTRY, entry, true);
    view.setUint32(header + BLOCK.REGION, slot, true);
    view.setUint16(record + RECORD.HANDLER, PSEUDO.ENTER_REGION, true);
  }

  /** Makes a module unreachable: its blocks are interpreted again, and its slots are empty. */
  drop(module: number): void {
    const installed = this.modules.get(module);
    if (installed === undefined) return;
    this.modules.delete(module);
    installed.regions.forEach((region, index) => {
      const number = module * MODULE_REGIONS + index;
      if (installed.live[index]) this.unpatch(region, number);
      this.table.set(this.firstSlot + number, null);
    });
  }

  private unpatch(region: RegionInfo, number: number): void {
    const { view } = this.reader;
    const descriptor = DESCRIPTORS + number * DESCRIPTOR_SIZE;
    for (const block of region.entries) {
      const record = view.getUint32(descriptor + DESCRIPTOR.BLOCKS + block * 4, true);
      const header = record - BLOCK.SIZE;
      if (!this.reader.isPatched(record) || this.reader.u32(header + BLOCK.REGION) !== this.firstSlot + number)
        continue;
      view.setUint16(record + RECORD.HANDLER, view.getUint16(header + BLOCK.ORIGINAL, true), true);
      view.setUint32(header + BLOCK.HEAT, 0, true);
    }
  }

  /** All blocks of the vCPU are gone; the modules stay, for the same code may come again. */
  forgetBlocks(): void {
    for (const { live } of this.modules.values()) live.length = 0;
  }

  /** Counts entries since this was last asked and gives their sum: tells of each module that was used, and of each region how often it was entered
   *  before and is now. */
  countEntries(
    used: (module: number) => void,
    entered: (region: RegionInfo, before: number, now: number) => void,
  ): number {
    const { entryCounts } = this;
    let sum = 0;
    for (const [module, installed] of this.modules) {
      const { regions, live } = installed;
      let some = false;
      for (let index = 0; index < regions.length; index++) {
        const count = entryCounts[module * MODULE_REGIONS + index];
        if (count === 0) continue;
        entryCounts[module * MODULE_REGIONS + index] = 0;
        some = true;
        sum += count;
        const before = installed.entered[index] ?? 0;
        installed.entered[index] = before + count;
        if (live[index]) entered(regions[index], before, before + count);
      }
      if (some) used(module);
    }
    return sum;
  }
}
