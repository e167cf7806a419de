; An application holds the shutdown up, and nobody is there to end it (T5.4).
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  show "Closing 1 app and shutting down", 10, 10, "Notepad", 10, \
       "This app is preventing you from shutting down.", 10, 10, "Shut down anyway    Cancel"
  ignore_all

  finish
