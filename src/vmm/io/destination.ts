// Which local APICs a destination names: physical, logical flat, logical cluster, x2APIC cluster, broadcast.
// SDM Vol. 3A 11.6.2 (determining IPI destination), 11.12.10 (x2APIC logical destination).
//
// `matches` is the rule, put to one APIC at a time. `DestinationMap` answers the same from tables made beforehand, so that a
// message costs the same with one vCPU and with many; tests hold it against a walk with `matches`.

import { BROADCAST_8, BROADCAST_XAPIC } from "./interrupt-message.ts";

/** The three states of IA32_APIC_BASE's EN and EXTD (SDM Vol. 3A 11.12.5.1, table 11-5). */
export const ApicMode = { DISABLED: 0, XAPIC: 1, X2APIC: 2 } as const;

/** What of a local APIC decides whether a destination names it. */
export interface ApicIdentity {
  readonly id: number;
  readonly mode: number;
  /** As the guest reads it: in xAPIC mode the logical id is in bits 31:24; in x2APIC mode cluster 31:16 and member 15:0. */
  readonly ldr: number;
  readonly dfr: number;
}

const DFR_FLAT = 0xf;
const DFR_CLUSTER = 0;

/** The logical id that hardware derives from an x2APIC id (SDM Vol. 3A 11.12.10.2). */
export function x2apicLogicalId(id: number): number {
  return (((id >>> 4) << 16) | (1 << (id & 15))) >>> 0;
}

/** Whether a globally enabled APIC is named. A disabled one is never: it takes no messages at all (SDM Vol. 3A 11.4.3). */
export function matches(apic: ApicIdentity, destination: number, logical: boolean, broadcast: number): boolean {
  if (apic.mode === ApicMode.DISABLED) return false;
  if (destination === broadcast) return true;
  if (apic.mode === ApicMode.X2APIC) {
    if (!logical) return apic.id === destination;
    return apic.ldr >>> 16 === destination >>> 16 && (apic.ldr & destination & 0xffff) !== 0;
  }
  if (destination === BROADCAST_8 && broadcast === BROADCAST_XAPIC) return true;
  if (destination > 0xff) return false;
  if (!logical) return (apic.id & 0xff) === destination;
  const logicalId = apic.ldr >>> 24;
  const model = apic.dfr >>> 28;
  if (model === DFR_FLAT) return (logicalId & destination) !== 0;
  if (model === DFR_CLUSTER) return logicalId >>> 4 === destination >>> 4 && (logicalId & destination & 15) !== 0;
  return false;
}

function append(table: Map<number, number[]>, key: number, position: number): void {
  const list = table.get(key);
  if (list === undefined) table.set(key, [position]);
  else list.push(position);
}

/** Answers kept of each kind. */
const KNOWN_MAX = 1024;

/** The tables for one set of identities; made anew whenever an id, mode, LDR or DFR changes. Answers are in the order of `apics`. */
export class DestinationMap<T extends ApicIdentity> {
  private readonly apics: readonly T[];
  private readonly enabled: readonly T[];
  private readonly physical = new Map<number, number[]>();
  /** Per bit of an 8-bit destination. */
  private readonly flat = new Map<number, number[]>();
  /** Per cluster * 4 + member. */
  private readonly cluster = new Map<number, number[]>();
  /** Per cluster * 16 + member. */
  private readonly x2apicCluster = new Map<number, number[]>();
  /** Answers that were given: IPIs go to the same few again and again. */
  private readonly foundLogical = new Map<number, readonly T[]>();
  private readonly foundPhysical = new Map<number, readonly T[]>();

  constructor(apics: readonly T[]) {
    this.apics = apics;
    this.enabled = apics.filter((apic) => apic.mode !== ApicMode.DISABLED);
    apics.forEach((apic, position) => {
      if (apic.mode === ApicMode.X2APIC) {
        append(this.physical, apic.id, position);
        for (let member = 0; member < 16; member++) {
          if (apic.ldr & (1 << member)) append(this.x2apicCluster, (apic.ldr >>> 16) * 16 + member, position);
        }
      } else if (apic.mode === ApicMode.XAPIC) {
        append(this.physical, apic.id & 0xff, position);
        this.addLogical(apic.ldr >>> 24, apic.dfr >>> 28, position);
      }
    });
  }

  /** Every APIC that takes messages. */
  all(): readonly T[] {
    return this.enabled;
  }

  find(destination: number, logical: boolean, broadcast: number): readonly T[] {
    if (destination === broadcast) return this.enabled;
    if (destination === BROADCAST_8 && broadcast === BROADCAST_XAPIC)
      return this.enabled.filter((apic) => matches(apic, destination, logical, broadcast));
    const known = logical ? this.foundLogical : this.foundPhysical;
    let found = known.get(destination);
    if (found === undefined) {
      found = logical ? this.findLogical(destination) : this.findPhysical(destination);
      if (known.size === KNOWN_MAX) known.clear();
      known.set(destination, found);
    }
    return found;
  }

  private findPhysical(destination: number): readonly T[] {
    return (this.physical.get(destination) ?? []).map((position) => this.apics[position]);
  }

  private findLogical(destination: number): readonly T[] {
    const found = new Set<number>();
    const take = (positions: number[] | undefined) => {
      if (positions !== undefined) for (const position of positions) found.add(position);
    };
    if (destination <= 0xff) {
      for (let bit = 0; bit < 8; bit++) if (destination & (1 << bit)) take(this.flat.get(bit));
      for (let bit = 0; bit < 4; bit++)
        if (destination & (1 << bit)) take(this.cluster.get((destination >>> 4) * 4 + bit));
    }
    const first = (destination >>> 16) * 16;
    for (let bit = 0; bit < 16; bit++) if (destination & (1 << bit)) take(this.x2apicCluster.get(first + bit));
    return [...found].sort((a, b) => a - b).map((position) => this.apics[position]);
  }

  private addLogical(logicalId: number, model: number, position: number): void {
    if (model === DFR_FLAT) {
      for (let bit = 0; bit < 8; bit++) if (logicalId & (1 << bit)) append(this.flat, bit, position);
    } else if (model === DFR_CLUSTER) {
      for (let bit = 0; bit < 4; bit++) {
        if (logicalId & (1 << bit)) append(this.cluster, (logicalId >>> 4) * 4 + bit, position);
      }
    }
  }
}
