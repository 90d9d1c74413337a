// Makes regions of the blocks that the interpreter has noted as hot, a module for each batch of them, and hands their blocks over
// (docs/engine.md).

import type { Helper, Service } from "../../isa/helper.ts";
import type { Instruction } from "../../isa/instruction.ts";
import type { Memory } from "../../wasm/memory.ts";
import { type FuncRef, type FuncType, ModuleBuilder } from "../../wasm/module.ts";
import { PSEUDO } from "../decoder.ts";
import { IMPORT } from "../engine-imports.ts";
import { BLOCK, DESCRIPTOR, DESCRIPTOR_SIZE, DESCRIPTORS, HOT_LIST, RECORD, REGIONS_MAX, VAR } from "../layout.ts";
import { emitRegion } from "./emit.ts";
import { BlockReader, discoverRegion, type Region } from "./region.ts";
import type { RegionParts } from "./region-code.ts";
import { decodeHandlers, HANDLER_SECTION, SUPPORT } from "./support.ts";
import { Untranslatable } from "./untranslatable.ts";

export interface TranslatorOptions {
  readonly instructions: readonly Instruction[];
  /** Executions that make a block hot. */
  readonly threshold?: number;
  /** Bytes of WebAssembly after which everything is dropped. */
  readonly codeBytes?: number;
}

/** The engine that a translator works for. */
export interface TranslatorHost {
  readonly module: WebAssembly.Module;
  readonly exports: WebAssembly.Exports;
  readonly cpu: WebAssembly.Memory;
  readonly ram: WebAssembly.Memory;
  flushBlocks(): void;
}

/** Counted since the engine was made. */
export interface TranslatorStatistics {
  regions: number;
  regionInstructions: number;
  regionBytes: number;
  regionModules: number;
  /** Milliseconds. */
  translationTime: number;
}

/** Executions after which translating pays: a region costs some 0.4 ms on the thread that runs the guest, and saves some 20 ns an execution. A boot
 *  of the cloud kernel takes 4.7 s with 300, 3.1 with 4,000, 2.7 with 20,000. */
const THRESHOLD = 16_000;
const CODE_BYTES = 48 << 20;
/** Regions of one module. */
const BATCH = 64;
const TABLE_STEP = 4096;

/** The handlers by module, which many engines may share. */
const HANDLERS = new WeakMap<WebAssembly.Module, ReturnType<typeof decodeHandlers>>();

export class Translator {
  readonly statistics: TranslatorStatistics = {
    regions: 0,
    regionInstructions: 0,
    regionBytes: 0,
    regionModules: 0,
    translationTime: 0,
  };
  /** Instructions of regions that their handlers do, by name. */
  readonly byHandler = new Map<string, number>();
  private readonly host: TranslatorHost;
  private readonly view: DataView;
  private readonly reader: BlockReader;
  private readonly table: WebAssembly.Table;
  private readonly codeBytes: number;
  private readonly threshold: number;
  /** Table slot of the first region; its number is 0. */
  private readonly firstSlot: number;
  private nextNumber = 0;
  private bytes = 0;
  private flushes: number;

  constructor(host: TranslatorHost, options: TranslatorOptions) {
    this.host = host;
    this.view = new DataView(host.cpu.buffer);
    let handlers = HANDLERS.get(host.module);
    if (handlers === undefined) {
      const [section] = WebAssembly.Module.customSections(host.module, HANDLER_SECTION);
      if (section === undefined) throw new Error("the engine module does not tell its handlers");
      handlers = decodeHandlers(options.instructions, section);
      HANDLERS.set(host.module, handlers);
    }
    this.reader = new BlockReader(this.view, handlers);
    this.table = host.exports[SUPPORT.TABLE] as WebAssembly.Table;
    this.codeBytes = options.codeBytes ?? CODE_BYTES;
    this.firstSlot = this.table.length;
    this.flushes = this.view.getUint32(VAR.COUNT_ARENA_FLUSHES, true);
    this.threshold = options.threshold ?? THRESHOLD;
    this.view.setUint32(VAR.HOT_THRESHOLD, this.threshold, true);
  }

  /** To be called where the engine is not running: translates what has become hot. */
  work(): void {
    const { view } = this;
    const flushes = view.getUint32(VAR.COUNT_ARENA_FLUSHES, true);
    if (flushes !== this.flushes) {
      this.flushes = flushes;
      this.forget();
    }
    const count = view.getUint32(VAR.HOT_COUNT, true);
    if (count === 0) return;
    const started = performance.now();
    view.setUint32(VAR.HOT_COUNT, 0, true);
    this.reader.forgetGoals();
    const hot = Array.from({ length: count }, (_, n) => ({
      record: view.getUint32(HOT_LIST + n * 16, true),
      linearPage: view.getBigInt64(HOT_LIST + n * 16 + 8, true),
    }));
    for (let at = 0; at < hot.length; at += BATCH) {
      if (this.bytes > this.codeBytes || this.nextNumber + BATCH > REGIONS_MAX) {
        this.host.flushBlocks();
        this.flushes = view.getUint32(VAR.COUNT_ARENA_FLUSHES, true);
        this.forget();
        break;
      }
      this.translate(hot.slice(at, at + BATCH));
    }
    this.statistics.translationTime += performance.now() - started;
  }

  /** All blocks are gone, and with them whatever names a region. */
  private forget(): void {
    for (let number = 0; number < this.nextNumber; number++) this.table.set(this.firstSlot + number, null);
    this.nextNumber = 0;
    this.bytes = 0;
    this.reader.covered.clear();
  }

  private translate(hot: readonly { readonly record: number; readonly linearPage: bigint }[]): void {
    const { host } = this;
    const m = new ModuleBuilder();
    const cpu = m.importMemory(IMPORT, "cpu", { min: 1, max: 65536, shared: true });
    const ram = m.importMemory(IMPORT, "ram", { min: 1, max: 65536, shared: true });
    const imports: { [name: string]: WebAssembly.ImportValue } = { cpu: host.cpu, ram: host.ram };
    const parts = this.parts(m, cpu, ram, imports);
    const missed = (name: string): void => {
      this.byHandler.set(name, (this.byHandler.get(name) ?? 0) + 1);
    };
    const first = this.nextNumber;
    const codes = [];
    for (const { record, linearPage } of hot) {
      if (!this.reader.isUsable(record) || this.reader.isPatched(record)) continue;
      const region = discoverRegion(this.reader, record, linearPage, this.threshold);
      codes.push(emitRegion(m, parts, region, this.nextNumber, this.reader.handlers, missed));
      this.patch(region, this.nextNumber++);
      this.statistics.regionInstructions += region.instructions;
    }
    if (codes.length === 0) return;
    const missing = this.firstSlot + this.nextNumber - this.table.length;
    if (missing > 0) this.table.grow(Math.max(TABLE_STEP, missing));
    const funcs = codes.map((code, n) => m.adopt(`region${first + n}`, code));
    m.elementSegment(parts.table, this.firstSlot + first, funcs);
    const bytes = m.toBytes();
    imports[SUPPORT.TABLE] = this.table;
    new WebAssembly.Instance(new WebAssembly.Module(bytes), { [IMPORT]: imports });
    this.bytes += bytes.length;
    this.statistics.regionBytes += bytes.length;
    this.statistics.regionModules++;
    this.statistics.regions += codes.length;
  }

  /** Tells a region where this vCPU has its blocks, and hands the entries over to it, those that no other region has. */
  private patch(region: Region, number: number): void {
    const { view, reader } = this;
    const descriptor = DESCRIPTORS + number * DESCRIPTOR_SIZE;
    const records = region.blocks.map(({ host }) => reader.find(host));
    view.setUint32(descriptor + DESCRIPTOR.USED, 0, true);
    records.forEach((record, block) => {
      view.setUint32(descriptor + DESCRIPTOR.BLOCKS + block * 4, record, true);
    });
    region.entries.forEach((block, entry) => {
      const record = records[block];
      if (reader.isPatched(record)) return;
      const header = record - BLOCK.SIZE;
      view.setUint16(header + BLOCK.ORIGINAL, view.getUint16(record + RECORD.HANDLER, true), true);
      view.setUint16(header + BLOCK.ENTRY, entry, true);
      view.setUint32(header + BLOCK.REGION, this.firstSlot + number, true);
      view.setUint16(record + RECORD.HANDLER, PSEUDO.ENTER_REGION, true);
    });
  }

  private parts(
    m: ModuleBuilder,
    cpu: Memory,
    ram: Memory,
    imports: { [name: string]: WebAssembly.ImportValue },
  ): RegionParts {
    const { view } = this;
    const table = m.importTable(IMPORT, SUPPORT.TABLE, 0);
    const known = new Map<string, FuncRef>();
    const { exports } = this.host;
    const support = (name: string, type: FuncType): FuncRef => {
      let func = known.get(name);
      if (func === undefined) {
        const value = exports[name];
        if (value === undefined) throw new Untranslatable(`${name} is not for regions`);
        func = m.importFunc(IMPORT, name, type.params, type.results);
        known.set(name, func);
        imports[name] = value as WebAssembly.ImportValue;
      }
      return func;
    };
    const notOfRegions = (): never => {
      throw new Untranslatable("an access that regions do not make");
    };
    return {
      cpu,
      ram,
      table,
      support,
      func: (target: Helper | Service) =>
        support(SUPPORT.HELPER + target.name, {
          params: target.params,
          results: target.faults ? ["i32", ...target.results] : target.results,
        }),
      slowLoad: notOfRegions,
      slowStore: notOfRegions,
      get probeWrite(): FuncRef {
        return notOfRegions();
      },
      tlbIndexMask: view.getUint32(VAR.TLB_INDEX_MASK, true),
      tlbMasks: Array.from({ length: 5 }, (_, log) => view.getBigInt64(VAR.TLB_MASK + log * 8, true)),
    };
  }
}
