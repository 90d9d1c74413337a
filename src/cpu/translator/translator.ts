// Makes regions of the blocks that the interpreter has noted as hot, a module for each batch of them, and hands their blocks over
// (docs/engine.md).

import type { Helper, Service } from "../../isa/helper.ts";
import type { Instruction } from "../../isa/instruction.ts";
import type { Memory } from "../../wasm/memory.ts";
import { type FuncRef, type FuncType, ModuleBuilder } from "../../wasm/module.ts";
import { PSEUDO } from "../decoder.ts";
import { IMPORT } from "../engine-imports.ts";
import { BLOCK, HOT_LIST, RECORD, VAR } from "../layout.ts";
import { emitRegion } from "./emit.ts";
import { BlockReader, discoverRegion, type Region } from "./region.ts";
import type { RegionParts } from "./region-code.ts";
import { Untranslatable } from "./semantics.ts";
import { decodeHandlers, HANDLER_SECTION, SUPPORT } from "./support.ts";

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
/** What the table's length may not exceed: instantiating against larger ones is slow. */
const TABLE_MAX = 100_000;

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
  private readonly firstSlot: number;
  private nextSlot: number;
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
    this.nextSlot = this.firstSlot;
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
      if (this.bytes > this.codeBytes || this.nextSlot + BATCH > TABLE_MAX) {
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
    for (let slot = this.firstSlot; slot < this.nextSlot; slot++) this.table.set(slot, null);
    this.nextSlot = this.firstSlot;
    this.bytes = 0;
    this.reader.covered.clear();
  }

  private translate(hot: readonly { readonly record: number; readonly linearPage: bigint }[]): void {
    const { host } = this;
    const m = new ModuleBuilder();
    const cpu = m.importMemory(IMPORT, "cpu", { min: 1 });
    const ram = m.importMemory(IMPORT, "ram", { min: 1, max: 65536, shared: true });
    const imports: { [name: string]: WebAssembly.ImportValue } = { cpu: host.cpu, ram: host.ram };
    const parts = this.parts(m, cpu, ram, imports);
    const missed = (name: string): void => {
      this.byHandler.set(name, (this.byHandler.get(name) ?? 0) + 1);
    };
    const made: { region: Region; slot: number }[] = [];
    const codes = [];
    for (const { record, linearPage } of hot) {
      if (!this.reader.isUsable(record) || this.reader.isPatched(record)) continue;
      const region = discoverRegion(this.reader, record, linearPage, this.threshold);
      codes.push(emitRegion(m, parts, region, this.reader, missed));
      made.push({ region, slot: this.nextSlot++ });
      this.patch(region, this.nextSlot - 1);
      this.statistics.regionInstructions += region.instructions;
    }
    if (made.length === 0) return;
    if (this.nextSlot > this.table.length) this.table.grow(Math.max(TABLE_STEP, this.nextSlot - this.table.length));
    const funcs = codes.map((code, n) => m.adopt(`region${made[n].slot}`, code));
    m.elementSegment(parts.table, made[0].slot, funcs);
    const bytes = m.toBytes();
    imports[SUPPORT.TABLE] = this.table;
    new WebAssembly.Instance(new WebAssembly.Module(bytes), { [IMPORT]: imports });
    this.bytes += bytes.length;
    this.statistics.regionBytes += bytes.length;
    this.statistics.regionModules++;
    this.statistics.regions += made.length;
  }

  /** Hands the entries of a region over to it, those that no other region has. */
  private patch(region: Region, slot: number): void {
    const { view, reader } = this;
    region.entries.forEach((number, entry) => {
      const { record } = region.blocks[number];
      if (reader.isPatched(record)) return;
      const header = record - BLOCK.SIZE;
      view.setUint16(header + BLOCK.ORIGINAL, view.getUint16(record + RECORD.HANDLER, true), true);
      view.setUint16(header + BLOCK.ENTRY, entry, true);
      view.setUint32(header + BLOCK.REGION, slot, true);
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
