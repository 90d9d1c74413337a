// Only machines that translate load the translator, and the instruction descriptions with it.

import type { EngineName } from "../../machine/config.ts";
import type { RunnerOptions } from "../../machine/runner.ts";

export async function translatorFor(engine: EngineName): Promise<RunnerOptions["translator"]> {
  if (engine !== "translate") return undefined;
  const { standardTranslator } = await import("../../cpu/translator/standard-translator.ts");
  return standardTranslator();
}
