// What the host does with a vCPU, apart from what the vCPU itself does (its activity state). After bhyve's VCPU_IDLE and so on:
//
//   idle      nobody works with it; its state may be read and changed from outside
//   frozen    the run loop has it: decides, injects
//   running   the engine executes it
//   sleeping  it waits, halted, for an event; otherwise as idle
//
// The legal transitions stand here and nowhere else.

export const VCPU_STATE = { IDLE: "idle", FROZEN: "frozen", RUNNING: "running", SLEEPING: "sleeping" } as const;
export type VcpuState = (typeof VCPU_STATE)[keyof typeof VCPU_STATE];

const LEGAL: { readonly [from in VcpuState]: readonly VcpuState[] } = {
  idle: ["frozen"],
  frozen: ["running", "sleeping", "idle"],
  running: ["frozen"],
  sleeping: ["frozen"],
};

export class VcpuStateMachine {
  private present: VcpuState = VCPU_STATE.IDLE;

  get state(): VcpuState {
    return this.present;
  }

  /** An illegal transition is a fault of the core, not of the guest. */
  enter(next: VcpuState): void {
    if (!LEGAL[this.present].includes(next)) throw new Error(`a vCPU cannot go from ${this.present} to ${next}`);
    this.present = next;
  }
}
