// Between a vCPU's translator and the compiler: regions that have become hot go one way, modules come back and tell which of their regions are
// whose. Both may be on one thread, or on two with messages between them; whatever is exchanged can be posted.

import type { Region } from "./region.ts";

/** What the code of all regions of a machine depends on besides themselves. */
export interface CodeConstants {
  readonly engineModule: WebAssembly.Module;
  /** Table slot of the region with number 0. */
  readonly firstSlot: number;
  /** Index mask of the TLB in use, and the masks of aligned accesses by log2 of their bytes. */
  readonly tlbIndexMask: number;
  readonly tlbMasks: readonly bigint[];
}

export interface WantedRegion {
  readonly region: Region;
  /** The one that there was for this place did not fit, or was too small: the compiler is to make another. */
  readonly again: boolean;
}

export interface CompileRequest {
  readonly wanted: readonly WantedRegion[];
  /** Modules of which regions have been entered since the last request. */
  readonly used: readonly number[];
}

/** What a vCPU has to know of a region to install it. */
export interface RegionInfo {
  readonly blocks: readonly { readonly host: number; readonly length: number; readonly instructions: number }[];
  /** The guest's code of all blocks, one behind the other. */
  readonly code: Uint8Array<ArrayBuffer>;
  readonly entries: readonly number[];
  readonly instructions: number;
  /** RIP of the first block's page where it was found. */
  readonly linearPage: bigint;
}

export type CompileReply =
  /** Regions of a module to install. The module comes along the first time; what was at its slots before has been dropped by an earlier reply. */
  | {
      readonly kind: "install";
      readonly module: number;
      readonly made:
        | { readonly code: WebAssembly.Module; readonly regions: readonly RegionInfo[]; readonly bytes: number }
        | undefined;
      readonly regions: readonly { readonly index: number /** Made for another vCPU. */; readonly shared: boolean }[];
    }
  | { readonly kind: "drop"; readonly module: number }
  /** Regions, by the place of their first block, that cannot be made. */
  | { readonly kind: "refuse"; readonly places: readonly number[] };

export interface CompileService {
  /** True where the compiler is on another thread: replies come later, and guest code may change in between. */
  readonly background: boolean;
  request(request: CompileRequest): void;
  /** The next reply that has come in, or undefined. */
  take(): CompileReply | undefined;
}

/** Regions of a module: its number times this is the number of its first region. */
export const MODULE_REGIONS = 32;
