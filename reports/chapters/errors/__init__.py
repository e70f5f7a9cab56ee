"""How often is each loss fooled, by which attack, at which eps?"""
