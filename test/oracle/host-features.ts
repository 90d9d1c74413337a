// What the host's processor can execute: instructions of features that it lacks raise #UD there, whatever they do elsewhere.

import { readFileSync } from "node:fs";
import type { Plan } from "./plan.ts";

/** Linux's names (arch/x86/include/asm/cpufeatures.h) where they are not those of src/isa/features.ts. */
const LINUX_NAMES: { readonly [feature: string]: string } = {
  sse3: "pni",
  lzcnt: "abm",
  prefetchw: "3dnowprefetch",
  sha: "sha_ni",
};

function hostFlags(): ReadonlySet<string> | undefined {
  try {
    const line = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
    return line === undefined ? undefined : new Set(line.trim().split(/\s+/));
  } catch {
    return undefined;
  }
}

/** The kinds of cases that the host can be asked about. */
export function plansOfHost(plans: readonly Plan[]): readonly Plan[] {
  const flags = hostFlags();
  if (flags === undefined) return plans;
  return plans.filter(({ row }) => {
    const { feature } = row.instruction;
    return feature === undefined || flags.has(LINUX_NAMES[feature] ?? feature);
  });
}
