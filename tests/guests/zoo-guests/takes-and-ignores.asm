; Takes the press and does nothing, for its button is set to nothing (T5.5).
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  ignore_all

  finish
