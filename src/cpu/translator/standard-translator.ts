// The translator for the engine module with all instructions. Loaded only by machines that translate: the instruction descriptions come with it.

import { INSTRUCTIONS } from "../../isa/table.ts";
import { Translator, type TranslatorHost } from "./translator.ts";

export function standardTranslator(host: TranslatorHost): Translator {
  return new Translator(host, { instructions: INSTRUCTIONS });
}
