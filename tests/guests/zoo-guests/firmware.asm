; Never leaves firmware: no system that would turn ACPI on.
%include "zoo.inc"

  begin
  say "up"
doze:
  sti
  hlt
  jmp doze

  finish
