// Links to all vCPUs of a machine, from the thread of one of them or from the devices' thread; and how the two kinds of thread talk.

import { kick, limitWord } from "../../cpu/kick.ts";
import type { SkepErrorCode } from "../../errors.ts";
import type { ControlArea, Doorbell } from "../../vmm/parallel/control-area.ts";
import { VcpuLink } from "../../vmm/parallel/vcpu-link.ts";
import type { VcpuSections } from "../processors.ts";
import type { VcpuStatistics } from "../statistics.ts";
import type { VcpuAnswer } from "../vcpu-control.ts";

/** What the call STATISTICS gives. */
export interface ThreadStatistics {
  readonly vcpu: VcpuStatistics;
  readonly anomalies: { readonly [kind: string]: number };
}

/** What the call RESTORE is given. */
export interface ThreadRestore {
  readonly sections: VcpuSections;
  /** Virtual time at which the machine goes on. */
  readonly time: number;
}

/** What the call CONTROL gives. */
export type ThreadAnswer = { readonly answer: VcpuAnswer } | { readonly refused: string; readonly code: SkepErrorCode };

export function vcpuLinks(area: ControlArea, memories: readonly WebAssembly.Memory[], bell: Doorbell): VcpuLink[] {
  return memories.map((memory, id) => {
    const limit = limitWord(memory);
    return new VcpuLink(area, id, () => kick(limit), bell);
  });
}
