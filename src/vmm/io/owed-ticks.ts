// The ticks of a periodic timer that guests tell the time by: IRQ 0, of the 8254 or of the HPET in its place. A host that does something else for
// a while would make several edges one. So edges are owed until the guest acknowledges them, one at a time, as KVM does it for the 8254 (Linux,
// Documentation/virt/kvm/api.rst, KVM_REINJECT_CONTROL; arch/x86/kvm/i8254.c): the next is made when the one before has been served, however
// late that is.

import type { Schema, Stateful } from "../state.ts";

/** So many edges are owed at most. A guest that serves none gets each as it comes from then on, as from the chip itself. */
export const OWED_MAX = 1000;

export const owedTicksSchema: Schema = {
  kind: "owed-ticks",
  version: 1,
  fields: { owed: "u32", outstanding: "bool" },
  derived: ["pulse", "statistics", "limit"],
};

export class OwedTicks implements Stateful {
  readonly schema = owedTicksSchema;
  /** Edges that were made late, after an acknowledgement, and those that were never made. */
  readonly statistics = { reinjected: 0, dropped: 0 };
  /** So many edges are owed at most; with 1 each is made as it comes, and none later. */
  limit = OWED_MAX;
  private readonly pulse: () => void;
  /** Edges that the guest has not acknowledged, with the one that is on its way. */
  private owed = 0;
  /** An edge has been made that was not acknowledged. */
  private outstanding = false;

  /** `pulse` makes an edge. */
  constructor(pulse: () => void) {
    this.pulse = pulse;
  }

  /** So many edges are due. */
  owe(edges: number): void {
    const owed = this.owed + edges;
    this.owed = Math.min(owed, this.limit);
    this.statistics.dropped += owed - this.owed;
    if (!this.outstanding || this.owed === this.limit) this.make();
  }

  /** The guest has served the interrupt, at whichever interrupt controller: the next edge can be seen. */
  acknowledged(): void {
    if (!this.outstanding) return;
    this.outstanding = false;
    this.owed = Math.max(0, this.owed - 1);
    if (this.owed === 0) return;
    this.statistics.reinjected++;
    this.make();
  }

  /** Nothing is owed any more: the timer was programmed anew, or its interrupt let through again or led elsewhere. */
  forget(): void {
    this.owed = 0;
    this.outstanding = false;
  }

  private make(): void {
    this.outstanding = true;
    this.pulse();
  }
}
