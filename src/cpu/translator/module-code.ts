// A WebAssembly module of regions, while it is being written.

import type { Helper, Service } from "../../isa/helper.ts";
import type { Code } from "../../wasm/code.ts";
import { type FuncRef, type FuncType, ModuleBuilder } from "../../wasm/module.ts";
import { wasmText } from "../../wasm/text.ts";
import { IMPORT, ORDERED_EXPORT } from "../engine-imports.ts";
import type { HandlerSpec } from "../handlers.ts";
import { JOURNAL_EXPORT, JOURNAL_TYPE, watchStores } from "../journal.ts";
import type { CodeConstants } from "./compile-service.ts";
import { emitRegion, type MissCounter } from "./emit.ts";
import type { Region } from "./region.ts";
import type { RegionParts } from "./region-code.ts";
import { SUPPORT } from "./support.ts";
import { Untranslatable } from "./untranslatable.ts";

/** What all modules of a machine are written with. */
export interface ModuleParts {
  readonly constants: CodeConstants;
  readonly handlers: readonly (HandlerSpec | undefined)[];
  /** What the engine module exports. */
  readonly exports: ReadonlySet<string>;
  readonly missed: MissCounter;
  /** Takes each region as text: its instructions, each before its code. */
  readonly dump?: ((line: string) => void) | undefined;
}

export class ModuleCode {
  private readonly m = new ModuleBuilder();
  private readonly parts: ModuleParts;
  private readonly regionParts: RegionParts;
  private readonly first: number;
  private readonly codes: Code[] = [];

  /** `first`: number of its first region. */
  constructor(parts: ModuleParts, first: number) {
    this.parts = parts;
    this.first = first;
    this.regionParts = this.importParts();
  }

  get count(): number {
    return this.codes.length;
  }

  /** Writes a region. Where that throws, nothing of it stays. */
  add(region: Region): void {
    const { handlers, missed, dump } = this.parts;
    const number = this.first + this.count;
    const code = emitRegion(this.m, this.regionParts, region, number, handlers, missed, dump !== undefined);
    if (dump !== undefined) {
      const { code: bytes, notes } = code.noted;
      dump(`region ${number}, ${region.instructions} instructions`);
      for (const line of wasmText(bytes, notes)) dump(line);
    }
    this.codes.push(code);
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    const funcs = this.codes.map((code, n) => this.m.adopt(`region${this.first + n}`, code));
    this.m.elementSegment(this.regionParts.table, this.parts.constants.firstSlot + this.first, funcs);
    return this.m.toBytes();
  }

  private importParts(): RegionParts {
    const { m, parts } = this;
    const cpu = m.importMemory(IMPORT, "cpu", { min: 1, max: 65536, shared: true });
    const ram = m.importMemory(IMPORT, "ram", { min: 1, max: 65536, shared: true });
    const table = m.importTable(IMPORT, SUPPORT.TABLE, 0);
    const known = new Map<string, FuncRef>();
    const support = (name: string, type: FuncType): FuncRef => {
      let func = known.get(name);
      if (func === undefined) {
        if (!parts.exports.has(name)) throw new Untranslatable(`${name} is not for regions`);
        func = m.importFunc(IMPORT, name, type.params, type.results);
        known.set(name, func);
      }
      return func;
    };
    ram.ordered = parts.exports.has(ORDERED_EXPORT);
    if (parts.exports.has(JOURNAL_EXPORT)) watchStores(ram, () => support(JOURNAL_EXPORT, JOURNAL_TYPE));
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
      slowLocked: notOfRegions,
      get probeWrite(): FuncRef {
        return notOfRegions();
      },
      tlbIndexMask: parts.constants.tlbIndexMask,
      tlbMasks: parts.constants.tlbMasks,
    };
  }
}
