// A vCPU's side of translation: finds regions around the blocks that the interpreter has noted as hot, has them made (compile-service.ts), and hands
// their blocks over (docs/engine.md).

import { BLOCK, HOT_LIST, VAR } from "../layout.ts";
import type { CodeConstants, CompileReply, CompileService, RegionInfo, WantedRegion } from "./compile-service.ts";
import { Installer } from "./installer.ts";
import { BlockReader, discoverRegion, LARGE_LIMITS, LIMITS, type RegionLimits } from "./region.ts";
import { RegionLog } from "./region-log.ts";
import { END_SECTION } from "./support.ts";

export interface TranslatorOptions {
  /** Opens the way to the compiler. */
  readonly compiler: (constants: CodeConstants) => CompileService;
  /** Executions that make a block hot. */
  readonly threshold?: number;
  /** Takes a line for each region that is handed over, that is first entered, or that is dropped. */
  readonly trace?: ((line: string) => void) | undefined;
  /** Runs that what has become hot waits for more to ask for together with; where the compiler is elsewhere. */
  readonly askAfter?: number;
  /** Entries after which a region is made larger. */
  readonly largeAfter?: number;
}

/** What can be told of regions, a line at a time: when they come and go, and their instructions with the code made of them. */
export interface RegionTraces {
  readonly regions?: ((line: string) => void) | undefined;
  readonly code?: ((line: string) => void) | undefined;
}

export type MakeTranslator = (host: TranslatorHost, traces?: RegionTraces) => Translator;

/** The engine that a translator works for. */
export interface TranslatorHost {
  readonly module: WebAssembly.Module;
  readonly exports: WebAssembly.Exports;
  readonly cpu: WebAssembly.Memory;
  readonly ram: WebAssembly.Memory;
  /** The block of 64-bit code at a host address, decoded where none is known; 0 where that cannot be. */
  blockAt(host: number): number;
  /** Regions now stand at some table slots. */
  regionsMade?(first: number, count: number): void;
}

/** Counted since the engine was made. */
export interface TranslatorStatistics {
  /** Regions that were handed over, and their instructions. */
  regions: number;
  regionInstructions: number;
  /** How often regions were entered, as far as that has been counted (every 64 runs). */
  regionEntries: number;
  /** Those whose code had changed before they came, and those that could not be made. */
  regionsStale: number;
  regionsRefused: number;
  /** Modules that came, that were dropped, and that there are, with their bytes. */
  regionModules: number;
  regionModulesDropped: number;
  regionModulesKept: number;
  regionBytesKept: number;
  /** Milliseconds on this thread. */
  translationTime: number;
}

/** Executions after which translating pays: on the thread that runs the guest a region costs some 0.4 ms, and it saves some 20 ns an execution. On
 *  another thread it costs finding and installing, some 0.1 ms; but what V8 then does to optimize it takes processor time on further threads. */
const THRESHOLD = { SAME_THREAD: 16_000, BACKGROUND: 8_000 } as const;
/** Regions that have been asked for and not come yet; what else becomes hot waits. */
const PENDING_MAX = 512;
/** Runs from one look at what was entered to the next. */
const COUNT_EVERY = 64;
/** Entries after which a region is made anew, larger: the guest goes to and fro between it and others. */
const LARGE_AFTER = 100_000;
/** Regions that are asked for together, and runs that the first of them waits for others. */
const ASK_TOGETHER = 16;
const ASK_AFTER = 10;
/** Places that something is remembered of. */
const REMEMBERED_MAX = 10_000;

/** A region that was found, with its first records. */
interface Found {
  readonly wanted: WantedRegion;
  readonly records: readonly number[];
}

export class Translator {
  private readonly counts = {
    regions: 0,
    regionInstructions: 0,
    regionEntries: 0,
    regionsStale: 0,
    regionsRefused: 0,
    regionModules: 0,
    regionModulesDropped: 0,
    translationTime: 0,
  };
  private readonly view: DataView;
  private readonly reader: BlockReader;
  private readonly installer: Installer;
  private readonly service: CompileService;
  private readonly threshold: number;
  private readonly askAfter: number;
  private readonly largeAfter: number;
  /** First records of the blocks of regions that are on their way, by the host address of the region's first block. */
  private readonly pending = new Map<number, readonly number[]>();
  private readonly pendingBlocks = new Set<number>();
  /** Those where such a region may be entered. */
  private readonly pendingEntries = new Set<number>();
  /** Found at the end of the last run, and not asked for yet. */
  private found: Found[] = [];
  /** Places for which the region that came did not fit. */
  private readonly misfits = new Set<number>();
  private flushes: number;
  private readonly log: RegionLog | undefined;
  private runs = 0;
  private waited = 0;
  /** Modules that were used and not reported yet. */
  private readonly used = new Set<number>();
  /** Places of regions that are to be replaced by larger ones, and of those that have been. */
  private readonly growing = new Set<number>();
  private readonly grown = new Set<number>();

  constructor(host: TranslatorHost, options: TranslatorOptions) {
    this.view = new DataView(host.cpu.buffer);
    const [ends] = WebAssembly.Module.customSections(host.module, END_SECTION);
    if (ends === undefined) throw new Error("the engine module does not tell how blocks end");
    this.reader = new BlockReader(this.view, new Uint8Array(ends), new Uint8Array(host.ram.buffer));
    this.installer = new Installer(host, this.reader);
    this.service = options.compiler({
      engineModule: host.module,
      firstSlot: this.installer.firstSlot,
      tlbIndexMask: this.view.getUint32(VAR.TLB_INDEX_MASK, true),
      tlbMasks: Array.from({ length: 5 }, (_, log) => this.view.getBigInt64(VAR.TLB_MASK + log * 8, true)),
    });
    this.flushes = this.view.getUint32(VAR.COUNT_ARENA_FLUSHES, true);
    this.log = options.trace === undefined ? undefined : new RegionLog(this.view, this.installer, options.trace);
    this.threshold = options.threshold ?? (this.service.background ? THRESHOLD.BACKGROUND : THRESHOLD.SAME_THREAD);
    this.askAfter = options.askAfter ?? ASK_AFTER;
    this.largeAfter = options.largeAfter ?? LARGE_AFTER;
    this.view.setUint32(VAR.HOT_THRESHOLD, this.threshold, true);
  }

  get statistics(): TranslatorStatistics {
    const { moduleCount, bytes } = this.installer;
    return { ...this.counts, regionModulesKept: moduleCount, regionBytesKept: bytes };
  }

  /** To be called where the engine is not running, and where it has dropped all code that others have written: hands over what has come, and asks
   *  for what has become hot. */
  work(): void {
    const { view, service } = this;
    this.noticeFlush();
    this.log?.look();
    if (++this.runs % COUNT_EVERY === 0) this.count();
    let reply = service.take();
    const hot = this.pending.size < PENDING_MAX && view.getUint32(VAR.HOT_COUNT, true) !== 0;
    if (reply === undefined && !hot && this.found.length === 0) return;
    const started = performance.now();
    for (; reply !== undefined; reply = service.take()) this.receive(reply);
    // What others wrote while a region was being copied has been dropped since, so that what is asked for now is what its copy says.
    if (service.background && (this.found.length >= ASK_TOGETHER || ++this.waited > this.askAfter)) this.ask();
    if (hot) this.find();
    if (!service.background) {
      this.ask();
      for (reply = service.take(); reply !== undefined; reply = service.take()) this.receive(reply);
    }
    this.counts.translationTime += performance.now() - started;
  }

  /** Where all blocks are gone, so is what names them. */
  private noticeFlush(): void {
    const flushes = this.view.getUint32(VAR.COUNT_ARENA_FLUSHES, true);
    if (flushes === this.flushes) return;
    this.flushes = flushes;
    this.installer.forgetBlocks();
    this.log?.forgotten();
    this.pending.clear();
    this.pendingBlocks.clear();
    this.pendingEntries.clear();
    this.misfits.clear();
    this.growing.clear();
    this.grown.clear();
    this.found = [];
    this.reader.covered.clear();
  }

  private find(): void {
    const { view, reader } = this;
    const count = view.getUint32(VAR.HOT_COUNT, true);
    view.setUint32(VAR.HOT_COUNT, 0, true);
    reader.forgetGoals();
    for (let n = 0; n < count; n++) {
      const record = view.getUint32(HOT_LIST + n * 16, true);
      const linearPage = view.getBigInt64(HOT_LIST + n * 16 + 8, true);
      if (!reader.isUsable(record) || reader.isPatched(record) || this.pendingEntries.has(record)) continue;
      // Most blocks of a region are not entered from outside once it is there; one that becomes hot again gets a region of its own. A program's loops
      // are better off with one wherever they are hot; a kernel's paths are long, and become hot as a whole.
      if (linearPage < 0n && this.pendingBlocks.has(record)) {
        this.setHeat(record, 0);
        continue;
      }
      this.discover(record, linearPage, LIMITS);
    }
  }

  private discover(record: number, linearPage: bigint, limits: RegionLimits): void {
    const { region, records } = discoverRegion(this.reader, record, linearPage, this.threshold, limits);
    const place = region.blocks[0].host;
    this.log?.found(place, linearPage + BigInt(this.reader.offset(record)));
    this.pending.set(place, records);
    for (const block of records) this.pendingBlocks.add(block);
    for (const entry of region.entries) this.pendingEntries.add(records[entry]);
    this.found.push({ wanted: { region, again: this.misfits.delete(place) || this.growing.has(place) }, records });
  }

  /** Looks which regions were entered, and makes those larger that the guest enters again and again. */
  private count(): void {
    const { installer, reader } = this;
    const often: { readonly region: RegionInfo; readonly times: number }[] = [];
    this.counts.regionEntries += installer.countEntries(
      (module) => this.used.add(module),
      (region, before, times) => {
        if (before < this.largeAfter && times >= this.largeAfter) often.push({ region, times });
      },
    );
    if (often.length === 0) return;
    reader.forgetGoals();
    for (const { region } of often.toSorted((a, b) => b.times - a.times)) {
      const place = region.blocks[0].host;
      const record = reader.find(place);
      if (record === 0 || this.grown.has(place) || this.pending.has(place)) continue;
      if (this.grown.size >= REMEMBERED_MAX) this.grown.clear();
      this.grown.add(place);
      this.growing.add(place);
      this.discover(record, region.linearPage, LARGE_LIMITS);
    }
  }

  /** Asks for what was found, as far as it is still there. */
  private ask(): void {
    const wanted: WantedRegion[] = [];
    for (const found of this.found) {
      if (this.isAlive(found)) wanted.push(found.wanted);
      else this.settle(found.wanted.region.blocks[0].host);
    }
    this.found = [];
    this.waited = 0;
    if (wanted.length === 0) return;
    this.service.request({ wanted, used: [...this.used] });
    this.used.clear();
  }

  private isAlive({ wanted, records }: Found): boolean {
    return wanted.region.blocks.every(({ host }, n) => this.reader.find(host) === records[n]);
  }

  private receive(reply: CompileReply): void {
    const { installer, counts } = this;
    switch (reply.kind) {
      case "drop":
        this.log?.dropped(reply.module);
        installer.drop(reply.module);
        counts.regionModulesDropped++;
        return;
      case "refuse":
        counts.regionsRefused += reply.places.length;
        for (const place of reply.places) this.settle(place);
        return;
      case "install": {
        if (reply.made !== undefined) counts.regionModules++;
        installer.add(reply);
        for (const { index, shared } of reply.regions) this.install(reply.module, index, shared);
        return;
      }
    }
  }

  private install(module: number, index: number, shared: boolean): void {
    const { installer, counts } = this;
    const region = installer.region(module, index);
    if (region === undefined) return;
    const place = region.blocks[0].host;
    this.settle(place);
    // Decoding ahead moves where slices end, so that a single vCPU with the compiler on its own thread does not do it: it is to stop where the
    // interpreter does.
    const outcome = installer.install(module, index, shared || this.service.background, this.growing.delete(place));
    if (outcome === "done") {
      counts.regions++;
      counts.regionInstructions += region.instructions;
      this.log?.installed(module, index);
    } else {
      counts.regionsStale++;
      if (this.misfits.size >= REMEMBERED_MAX) this.misfits.clear();
      if (outcome === "changed" || !shared) this.misfits.add(place);
      // It may become hot once more.
      const record = this.reader.find(place);
      if (record !== 0) this.setHeat(record, 0);
    }
    this.noticeFlush();
  }

  private setHeat(record: number, heat: number): void {
    this.view.setUint32(record - BLOCK.SIZE + BLOCK.HEAT, heat, true);
  }

  /** A region is no longer on its way. */
  private settle(place: number): void {
    for (const block of this.pending.get(place) ?? []) {
      this.pendingBlocks.delete(block);
      this.pendingEntries.delete(block);
    }
    this.pending.delete(place);
  }
}
