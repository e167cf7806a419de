; Powers off at once.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  power_off

  finish
