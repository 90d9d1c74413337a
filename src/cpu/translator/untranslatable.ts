/** Thrown where an instruction asks for what translated code does not do: it is then done by its handler. */
export class Untranslatable extends Error {}
