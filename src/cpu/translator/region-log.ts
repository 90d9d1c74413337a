// One line for each region that is handed over to a vCPU, that is entered for the first time, and that is dropped (`--trace regions`).

import { ENTRY_COUNTS } from "../layout.ts";
import { MODULE_REGIONS } from "./compile-service.ts";
import type { Installer } from "./installer.ts";

export class RegionLog {
  private readonly view: DataView;
  private readonly installer: Installer;
  private readonly line: (line: string) => void;
  /** By number: those that have not been entered yet, and all that are there. */
  private readonly fresh = new Set<number>();
  private readonly present = new Set<number>();
  private readonly places = new Map<number, bigint>();

  constructor(view: DataView, installer: Installer, line: (line: string) => void) {
    this.view = view;
    this.installer = installer;
    this.line = line;
  }

  private used(number: number): number {
    return ENTRY_COUNTS + number * 4;
  }

  /** `rip`: where the block at a host address was hot. */
  found(host: number, rip: bigint): void {
    this.places.set(host, rip);
  }

  installed(module: number, index: number): void {
    const region = this.installer.region(module, index);
    if (region === undefined) return;
    const { blocks, entries, instructions } = region;
    const number = module * MODULE_REGIONS + index;
    this.present.add(number);
    this.fresh.add(number);
    this.view.setUint32(this.used(number), 0, true);
    const [{ host }] = blocks;
    const rip = BigInt.asUintN(64, this.places.get(host) ?? 0n);
    this.places.delete(host);
    this.line(
      `${number} at ${rip.toString(16)} (host ${host.toString(16)}): ${blocks.length} blocks, ${instructions} instructions, ${entries.length} entries`,
    );
  }

  /** Which have been entered since. */
  look(): void {
    for (const number of this.fresh) {
      if (this.view.getUint32(this.used(number), true) === 0) continue;
      this.fresh.delete(number);
      this.line(`${number} entered`);
    }
  }

  dropped(module: number): void {
    for (let number = module * MODULE_REGIONS; number < (module + 1) * MODULE_REGIONS; number++) {
      if (!this.present.delete(number)) continue;
      this.fresh.delete(number);
      this.line(`${number} dropped`);
    }
  }

  /** All blocks are gone, and with them the ways into regions. */
  forgotten(): void {
    if (this.present.size > 0) this.line(`all ${this.present.size} dropped with the blocks`);
    this.present.clear();
    this.fresh.clear();
  }
}
