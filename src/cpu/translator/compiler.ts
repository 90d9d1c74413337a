// Makes modules of the regions that vCPUs ask for, keeps them under a budget, and knows which vCPU has which. A region that one vCPU has had
// made serves the others. Module numbers, and with them table slots and descriptors, are the same in all vCPUs.
//
// Replies to a vCPU are taken in the order in which they were made. So a number can be used again as soon as the drop of the module that had it is
// on its way: whoever has the old module drops it before the new one comes.

import type { Instruction } from "../../isa/instruction.ts";
import { REGIONS_MAX } from "../layout.ts";
import {
  type CodeConstants,
  type CompileReply,
  type CompileRequest,
  MODULE_REGIONS,
  type RegionInfo,
  type WantedRegion,
} from "./compile-service.ts";
import { ModuleCode, type ModuleParts } from "./module-code.ts";
import type { Region } from "./region.ts";
import { decodeHandlers, HANDLER_SECTION } from "./support.ts";

export interface CompilerOptions {
  readonly instructions: readonly Instruction[];
  /** Bytes of WebAssembly that are kept. */
  readonly codeBytes?: number;
  /** Modules that are kept. */
  readonly modules?: number;
  readonly onFault?: (error: unknown) => void;
  /** Takes each region as text, a line at a time. */
  readonly dump?: ((line: string) => void) | undefined;
}

/** A vCPU, as the compiler sees it. */
export interface CompilerClient {
  reply(reply: CompileReply): void;
}

const CODE_BYTES = 24 << 20;
export const MODULES_MAX = REGIONS_MAX / MODULE_REGIONS;

/** A module that is kept. */
interface Kept {
  readonly number: number;
  code: WebAssembly.Module | undefined;
  bytes: number;
  readonly regions: RegionInfo[];
  readonly holders: Set<CompilerClient>;
  /** The number of modules that had been made when one of its regions was last known to be entered. */
  lastUsed: number;
}

interface Known {
  readonly client: CompilerClient;
  readonly kept: Kept;
  readonly index: number;
}

type Handlers = ReturnType<typeof decodeHandlers>;
/** The handlers by module, which many compilers may share, and instructions. */
const HANDLERS = new WeakMap<WebAssembly.Module, WeakMap<readonly Instruction[], Handlers>>();

function handlersOf(module: WebAssembly.Module, instructions: readonly Instruction[]): Handlers {
  const known = HANDLERS.get(module) ?? new WeakMap<readonly Instruction[], Handlers>();
  HANDLERS.set(module, known);
  let handlers = known.get(instructions);
  if (handlers === undefined) {
    const [section] = WebAssembly.Module.customSections(module, HANDLER_SECTION);
    if (section === undefined) throw new Error("the engine module does not tell its handlers");
    handlers = decodeHandlers(instructions, section);
    known.set(instructions, handlers);
  }
  return handlers;
}

function infoOf({ blocks, code, entries, instructions, pages }: Region): RegionInfo {
  const ofBlock = ({ host, length, instructions: count }: Region["blocks"][number]) => ({
    host,
    length,
    instructions: count,
  });
  return { blocks: blocks.map(ofBlock), code, entries, instructions, linearPage: pages[0] };
}

/** Whether a region that there is does for one that is wanted: it begins with the same code, and is not much smaller. */
function serves(there: RegionInfo, wanted: Region): boolean {
  const [{ length }] = there.blocks;
  return (
    there.instructions * 2 >= wanted.instructions &&
    length === wanted.blocks[0].length &&
    there.code.subarray(0, length).every((byte, n) => byte === wanted.code[n])
  );
}

export class Compiler {
  /** Instructions of regions that their handlers do, by name. */
  readonly byHandler = new Map<string, number>();
  private readonly parts: ModuleParts;
  private readonly codeBytes: number;
  private readonly onFault: CompilerOptions["onFault"];
  private readonly modules = new Map<number, Kept>();
  private readonly free: number[];
  /** The newest region that begins at a place in guest RAM. */
  private readonly known = new Map<number, Known>();
  private readonly queue: { readonly client: CompilerClient; readonly wanted: WantedRegion }[] = [];
  private bytes = 0;
  private made = 0;

  constructor(constants: CodeConstants, options: CompilerOptions) {
    this.codeBytes = options.codeBytes ?? CODE_BYTES;
    this.onFault = options.onFault;
    this.free = Array.from({ length: Math.min(options.modules ?? MODULES_MAX, MODULES_MAX) }, (_, n) => n).reverse();
    this.parts = {
      constants,
      handlers: handlersOf(constants.engineModule, options.instructions),
      exports: new Set(WebAssembly.Module.exports(constants.engineModule).map(({ name }) => name)),
      dump: options.dump,
      missed: (name) => this.byHandler.set(name, (this.byHandler.get(name) ?? 0) + 1),
    };
  }

  /** Takes in what a vCPU asks for; `work` answers. */
  request(client: CompilerClient, { wanted, used }: CompileRequest): void {
    for (const number of used) {
      const kept = this.modules.get(number);
      if (kept !== undefined) kept.lastUsed = this.made;
    }
    for (const one of wanted) this.queue.push({ client, wanted: one });
  }

  /** Answers some requests, at most a module's worth of new regions; false where there are none. */
  work(): boolean {
    if (this.queue.length === 0) return false;
    while (this.modules.size > 0 && (this.bytes > this.codeBytes || this.free.length === 0)) this.evict();
    const answers = new Map<CompilerClient, { known: Known[]; refused: number[] }>();
    let unfinished: { kept: Kept; code: ModuleCode } | undefined;
    let taken = 0;
    for (const { client, wanted } of this.queue) {
      const { region, again } = wanted;
      const place = region.blocks[0].host;
      const answer = answers.get(client) ?? { known: [], refused: [] };
      answers.set(client, answer);
      let known = this.known.get(place);
      if (
        known === undefined ||
        (again && known.kept.code !== undefined) ||
        !serves(known.kept.regions[known.index], region)
      ) {
        if (unfinished !== undefined && unfinished.code.count === MODULE_REGIONS) break;
        unfinished ??= this.begin();
        const { kept, code } = unfinished;
        try {
          code.add(region);
          known = { client, kept, index: kept.regions.push(infoOf(region)) - 1 };
          this.known.set(place, known);
        } catch (error) {
          this.fault(error);
          known = undefined;
        }
      }
      taken++;
      if (known === undefined) answer.refused.push(place);
      else answer.known.push(known);
    }
    this.queue.splice(0, taken);
    if (unfinished !== undefined) this.finish(unfinished.kept, unfinished.code);
    for (const [client, { known, refused }] of answers) this.answer(client, known, refused);
    return true;
  }

  private begin(): { kept: Kept; code: ModuleCode } {
    const number = this.free.pop() as number;
    const kept: Kept = { number, code: undefined, bytes: 0, regions: [], holders: new Set(), lastUsed: this.made };
    return { kept, code: new ModuleCode(this.parts, number * MODULE_REGIONS) };
  }

  private finish(kept: Kept, code: ModuleCode): void {
    if (code.count === 0) {
      this.free.push(kept.number);
      return;
    }
    const bytes = code.toBytes();
    try {
      kept.code = new WebAssembly.Module(bytes);
    } catch (error) {
      this.fault(error);
      this.release(kept);
      return;
    }
    kept.bytes = bytes.length;
    kept.lastUsed = ++this.made;
    this.bytes += kept.bytes;
    this.modules.set(kept.number, kept);
  }

  private answer(client: CompilerClient, known: readonly Known[], refused: readonly number[]): void {
    const byModule = new Map<Kept, { index: number; shared: boolean }[]>();
    for (const { kept, index, client: first } of known) {
      const region = { index, shared: first !== client };
      const list = byModule.get(kept);
      if (list === undefined) byModule.set(kept, [region]);
      else list.push(region);
    }
    const places = [...refused];
    for (const [kept, regions] of byModule) {
      const { number, code, bytes } = kept;
      if (code === undefined) {
        places.push(...regions.map(({ index }) => kept.regions[index].blocks[0].host));
        continue;
      }
      const made = kept.holders.has(client) ? undefined : { code, regions: kept.regions, bytes };
      kept.holders.add(client);
      client.reply({ kind: "install", module: number, made, regions });
    }
    if (places.length > 0) client.reply({ kind: "refuse", places });
  }

  /** Drops the module that has not been used for longest. */
  private evict(): void {
    let oldest: Kept | undefined;
    for (const kept of this.modules.values())
      if (oldest === undefined || kept.lastUsed < oldest.lastUsed) oldest = kept;
    if (oldest === undefined) throw new Error("there is no module to drop");
    const { number, holders, bytes } = oldest;
    this.modules.delete(number);
    this.bytes -= bytes;
    this.release(oldest);
    for (const client of holders) client.reply({ kind: "drop", module: number });
  }

  private release(kept: Kept): void {
    this.free.push(kept.number);
    for (const { blocks } of kept.regions) {
      const [{ host }] = blocks;
      if (this.known.get(host)?.kept === kept) this.known.delete(host);
    }
  }

  /** Code that cannot be made is a fault of ours, and no reason to end the machine: what it was for stays interpreted. */
  private fault(error: unknown): void {
    this.onFault?.(error);
  }
}
