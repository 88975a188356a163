"""Maps of trained models: stimuli shown, metrics measured on sheets, figures drawn."""
